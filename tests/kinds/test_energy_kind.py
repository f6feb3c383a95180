"""Energy as a kind of measurement: what the table says with a counter and without one."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tokbench
from tokbench.kinds import KINDS
from tokbench.kinds.energy import EnergyRecord
from tokbench.measure import energy, energy_meter
from tokbench.measure.energy_meter import Meter, NoMeterError

REASON = "the meter is out of reach"
SETTINGS: dict[str, Any] = {
    "models": "digits_deit",
    "methods": "tome",
    "keep": 0.5,
    "baselines": [24],
    "only": ["energy"],
}


def unreadable(_: object) -> Meter:
    raise NoMeterError(REASON)


def compared(out: Path, **changes: Any) -> pd.DataFrame:
    return tokbench.compare(out=out, progress=False, **{**SETTINGS, "batch_size": 2, "seconds": 0.01, **changes})


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that draws 50 W whatever it does, and blocks of moments."""
    for name in ("BLOCK_S", "IDLE_S", "LEAD_S"):
        monkeypatch.setattr(energy, name, 0.01)
    monkeypatch.setattr(energy_meter, "meter_of", lambda _: Meter("RAPL", lambda: 50 * time.perf_counter()))


def test_without_a_counter_the_cells_are_empty_and_the_reason_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy_meter, "meter_of", unreadable)
    table = compared(tmp_path)
    assert table["status"].eq("ok").all()
    assert table[[column.name for column in KINDS["energy"].columns]].isna().all(axis=None)
    assert table["remarks"].str.contains(f"no energy: {REASON}").all()


@pytest.mark.usefixtures("counter")
def test_with_a_counter_every_row_has_energy(tmp_path: Path) -> None:
    table = compared(tmp_path)
    assert table["params"].str.contains("img_size").sum() == 1
    for name in ("joules_per_image", "energy_saving"):
        assert (table[f"{name}_lo"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_hi"]).all()
    assert (table[["joules_per_image_lo", "plain_joules_per_image", "idle_w"]] > 0).all(axis=None)


def test_a_counter_that_can_be_read_later_is_read_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setattr(energy_meter, "meter_of", unreadable)
        compared(tmp_path)
    for name in ("BLOCK_S", "IDLE_S", "LEAD_S"):
        monkeypatch.setattr(energy, name, 0.01)
    monkeypatch.setattr(energy_meter, "meter_of", lambda _: Meter("RAPL", lambda: 50 * time.perf_counter()))
    assert compared(tmp_path)["joules_per_image"].notna().all()


def test_a_counter_that_stands_still_while_it_is_read_is_a_reason_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "PATIENCE_S", 0.05)
    monkeypatch.setattr(energy, "IDLE_S", 0.01)
    monkeypatch.setattr(energy_meter, "meter_of", lambda _: Meter("RAPL", lambda: 7.0))
    table = compared(tmp_path, baselines=["none"])
    assert table["status"].eq("ok").all()
    assert table["joules_per_image"].isna().all()
    assert table["remarks"].str.contains("the energy counter stood still").all()


def with_record(directory: Path, record: EnergyRecord) -> pd.Series:
    """The row of `tome`, whose record is another one."""
    results = tokbench.load(directory)
    row = next(row for row in results.plan.rows if row.id.method == "tome")
    kind = KINDS["energy"]
    values = asdict(record)
    adapted = kind.adapter.validate_python(json.loads(json.dumps(values)))
    assert adapted == record

    class Read:
        def record(self, *_: object) -> EnergyRecord:
            return record

    filled = kind.fill(row, None, Read())  # type: ignore[arg-type]
    return pd.Series({**filled, "remarks": kind.remarks(row, Read())})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("energy")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(energy_meter, "meter_of", unreadable)
        compared(out, baselines=["none"])
    return out


def test_numbers_are_medians_over_blocks_and_pairs(directory: Path) -> None:
    record = EnergyRecord("NVML", (4.0, 4.4, 4.0, 4.2, 4.0, 4.0), (2.0, 2.0, 2.0, 2.1, 4.0, 1.0), idle_w=61.5)
    row = with_record(directory, record)
    assert row["joules_per_image"] == 2.0
    assert (row["joules_per_image_lo"], row["joules_per_image_hi"]) == (1.0, 4.0)
    assert row["plain_joules_per_image"] == 4.0
    assert row["energy_saving"] == pytest.approx(2.0)  # the middle of 1, 2, 2, 2, 2.2 and 4
    assert (row["energy_saving_lo"], row["energy_saving_hi"]) == pytest.approx((1.0, 4.0))
    assert row["idle_w"] == 61.5
    assert row["remarks"] == []


def test_remarks_say_what_else_the_counter_counted_and_how_coarse_it_was(directory: Path) -> None:
    measured = {"base_j": (4.0,) * 6, "other_j": (2.0,) * 6}
    busy = {"other_load": 0.4, "edge": 0.1}
    remarks = with_record(directory, EnergyRecord("RAPL", **measured, **busy))["remarks"]
    assert [remark.partition(",")[0] for remark in remarks] == [
        "the energy contains that of other processes",
        "a block's energy may be 10 % off",
    ]
    assert len(with_record(directory, EnergyRecord("NVML", **measured, **busy))["remarks"]) == 1  # a GPU's is its own


def test_it_is_measured_on_request_only(directory: Path) -> None:
    assert "energy" not in tokbench.suite.Suite.model_fields["only"].default
    assert KINDS["energy"].exclusive
