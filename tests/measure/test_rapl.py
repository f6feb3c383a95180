"""The CPU's energy counters, in folders laid out as Linux's."""

from pathlib import Path

import pytest
import torch

from tokbench.measure import energy_meter, rapl
from tokbench.measure.energy_meter import NoMeterError, meter_name, meter_of
from tokbench.measure.rapl import PackageEnergy

RANGE = 262_143_328_850
CPU = torch.device("cpu")


def write_zone(root: Path, zone: str, name: str, microjoules: int, largest: int = RANGE) -> Path:
    folder = root / zone
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{largest}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def test_packages_are_summed_and_their_parts_left_out(tmp_path: Path) -> None:
    first = write_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    second = write_zone(tmp_path, "intel-rapl:1", "package-1", 500)
    parts = [
        write_zone(tmp_path, "intel-rapl:0:0", "core", 0),
        write_zone(tmp_path, "intel-rapl:0:1", "dram", 0),
        write_zone(tmp_path, "intel-rapl:2", "psys", 0),  # the whole machine, the packages included
        write_zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),  # the same package by another way
    ]
    counter = PackageEnergy(tmp_path)
    assert counter.read() == 0
    first.write_text("3500000")
    second.write_text("1000500")
    for part in parts:
        part.write_text("99000000")
    assert counter.read() == pytest.approx(3.5)
    assert counter.read() == pytest.approx(3.5)


def test_a_counter_that_starts_again_goes_on(tmp_path: Path) -> None:
    file = write_zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 4_000_000)
    counter = PackageEnergy(tmp_path)
    for shown, joules in ((RANGE - 1_000_000, 3.0), (2_000_000, 6.0), (RANGE - 1_000_000, 6 + RANGE / 1e6 - 3)):
        file.write_text(str(shown))
        assert counter.read() == pytest.approx(joules)


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of /sys/class/powercap."""
    monkeypatch.setattr(rapl.PackageEnergy.__init__, "__defaults__", (tmp_path,))
    return tmp_path


def test_a_machine_without_counters_says_so(powercap: Path) -> None:
    with pytest.raises(NoMeterError, match="shows no energy counter of its CPU"):
        meter_of(CPU)
    write_zone(powercap, "intel-rapl:0:0", "core", 0)
    with pytest.raises(NoMeterError, match="shows no energy counter of its CPU"):
        meter_of(CPU)
    assert meter_name("cpu") is None


def test_a_counter_is_used_where_it_can_be_read(powercap: Path) -> None:
    file = write_zone(powercap, "intel-rapl:0", "package-0", 0)
    meter = meter_of(CPU)
    file.write_text("7000000")
    assert (meter.name, meter.read()) == ("RAPL", 7.0)
    assert meter_name("cpu") == "RAPL"


def test_a_counter_for_root_only_says_how_to_open_it(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zone(powercap, "intel-rapl:0", "package-0", 0)
    readable = Path.read_text

    def guarded(self: Path, *arguments: str, **options: str) -> str:
        """As for a user who is not root; the tests may run as root, who may read everything."""
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return readable(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", guarded)
    with pytest.raises(NoMeterError, match="only root may read the CPU's energy counter: sudo chmod a"):
        meter_of(CPU)
    assert energy_meter.READABLE.startswith("sudo chmod a+r /sys/class/powercap/")


def test_a_counter_that_shows_no_number_says_so(powercap: Path) -> None:
    write_zone(powercap, "intel-rapl:0", "package-0", 0).write_text("")
    with pytest.raises(NoMeterError, match="cannot be read"):
        meter_of(CPU)
