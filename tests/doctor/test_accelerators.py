"""What doctor says of GPUs and other accelerators, with a stand-in for NVML and for torch's lists of devices."""

from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
import torch
from stub_nvml import LibraryNotFoundError, StubNvml, install

from tokbench.doctor import accelerators, examine
from tokbench.measure.gpu import Condition

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> StubNvml:
    """Two GPUs on which no context can be opened, as where other programs have them to themselves."""

    def busy(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("CUDA-capable device(s) is/are busy or unavailable\nDevice-side assertions follow.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", busy)
    monkeypatch.setattr(accelerators, "synchronize", busy)
    monkeypatch.setattr(accelerators.torch, "ones", busy)
    return install(monkeypatch, StubNvml())


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_listed_without_opening_a_context_on_any() -> None:
    found = accelerators.gpus()
    assert found.status == "ok"
    one = "Simulated GPU, 3 of 80 GiB free"
    assert found.text.startswith(f"{one}; {one}; driver 580.65.06, CUDA {torch.version.cuda}")


def test_gpus_are_listed_without_nvml(two_gpus: StubNvml) -> None:
    two_gpus.fails["nvmlInit"] = LibraryNotFoundError("NVML Shared Library Not Found")
    assert accelerators.gpus().text.startswith("Simulated GPU, 80 GiB; Simulated GPU, 80 GiB; driver")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_another_program_has_is_one_problem_and_not_the_end(tmp_path: Path) -> None:
    found = {one.name: one for one in examine.examine(None, tmp_path, None)}
    assert [name for name, one in found.items() if one.status == "problem"] == ["device"]
    assert found["device"].text.endswith(
        "would use cuda, which cannot be used: CUDA-capable device(s) is/are busy or unavailable"
    )
    assert "\n" not in found["device"].text
    assert not {"clocks", "timing"} & set(found)


def test_a_driver_without_a_gpu_for_torch_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, StubNvml())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = accelerators.gpus()
    assert (found.status, found.text[:26]) == ("problem", "driver 580.65.06 is instal")


def test_no_gpu_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, StubNvml(fails={"nvmlInit": LibraryNotFoundError("no")}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if not Path("/proc/driver/nvidia/version").is_file():
        assert accelerators.gpus().status == "ok"
    assert accelerators.device_choice(CPU).status == "ok"


def test_hardware_that_nobody_has_tested_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (torch.cuda, torch.xpu, torch.mps):
        monkeypatch.setattr(module, "device_count", lambda: 0)
    assert accelerators.other_accelerators().status == "ok"
    monkeypatch.setattr(torch.mps, "device_count", lambda: 1)
    found = accelerators.other_accelerators()
    assert found.status == "note"
    assert "--device mps" in found.text
    assert "never been run on such hardware" in found.text
    assert "xpu" not in found.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "ROCm" not in accelerators.other_accelerators().text
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert "ROCm 7.0 (--device cuda)" in accelerators.other_accelerators().text


def test_others_on_the_same_gpu_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, StubNvml())
    monkeypatch.setattr(accelerators.torch, "ones", lambda *_, **__: SimpleNamespace(add_=lambda _: None))
    monkeypatch.setattr(accelerators, "synchronize", lambda _: None)
    found = accelerators.device_choice(GPU)
    assert (found.status, found.text) == ("note", "--device auto uses cuda: Simulated GPU; 1 other process uses it")


def test_the_state_under_load_is_told_as_far_as_it_is_known() -> None:
    found = accelerators.clocks_of(Condition(1410, 1593, 45, (), 251.3), 400.0)
    assert (found.status, found.text) == ("ok", "under load: 1410 MHz, memory 1593 MHz, 45 °C, 251 of 400 W")
    assert found.fix == "for steadier times fix the clock: sudo nvidia-smi -lgc 1410 (undo: -rgc)"
    found = accelerators.clocks_of(Condition(1200, None, None, ("power cap",), 400.0), None)
    assert (found.status, found.text) == ("note", "under load: 1200 MHz, 400 W; the clock is reduced: power cap")
    assert "nvidia-smi -lgc" in found.fix
    found = accelerators.clocks_of(Condition(None, None, None, (), None), 300.0)
    assert (found.status, found.text, found.fix) == ("ok", "under load: not reported", "")


def test_the_clock_of_a_cpu_is_read_at_once() -> None:
    text = accelerators.clocks(CPU).text
    assert text.endswith(" MHz") or text == "cannot be read on this machine"


def test_energy_is_readable_or_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = install(monkeypatch, StubNvml())
    assert accelerators.energy(GPU).text == "--only energy reads NVML"
    stub.mig = True
    found = accelerators.energy(GPU)
    assert (found.status, "MIG" in found.text) == ("note", True)
    assert accelerators.energy(torch.device("mps")).text.endswith("no energy counter of mps")
