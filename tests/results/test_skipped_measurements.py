"""What a row says where measurements of it were skipped during the run."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tokbench.results import load
from tokbench.results.plan import PLAN, PlannedRow, plan_json, read_plan
from tokbench.results.store import Store, write_json
from tokbench.results.table import NOT_MEASURED, any_failed

REFERENCE = Path(__file__).parents[1] / "stored/digits"
WHY = "ONNX has no such operator"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A stored run whose second row has nothing but MACs and a time to measure, neither of them measured yet."""
    shutil.copytree(REFERENCE, tmp_path / "x")
    plan = read_plan(tmp_path / "x")
    row = replace(plan.rows[1], keys={"macs": "of macs", "latency": "of latency"})
    write_json(tmp_path / "x" / PLAN, plan_json(replace(plan, rows=(plan.rows[0], row))))
    return tmp_path / "x"


def skip(directory: Path, kind: str) -> None:
    Store(directory).add("failed", f"{kind}/of {kind}", {"reason": WHY, "skipped": True})


def fail(directory: Path, kind: str) -> None:
    Store(directory).add("failed", f"{kind}/of {kind}", {"reason": "no luck"})


def measure_macs(directory: Path) -> None:
    """The MACs of another row."""
    store, original = Store(directory), read_plan(REFERENCE)
    record = store.get("macs", original.rows[1].keys["macs"])
    assert record is not None
    store.add("macs", "of macs", record)


def status(directory: Path) -> tuple[str, str]:
    row = second(directory)
    return str(row["status"]), str(row["reason"])


def second(directory: Path) -> pd.Series:
    row: pd.Series = load(directory).table.iloc[1]
    return row


def test_a_row_of_which_nothing_can_be_measured_is_skipped(directory: Path) -> None:
    skip(directory, "macs")
    assert status(directory) == ("failed", NOT_MEASURED)  # the time may still be measured
    skip(directory, "latency")
    assert status(directory) == ("skipped", WHY)
    assert not any_failed(load(directory).table)


def test_a_row_that_has_other_numbers_keeps_them_and_says_what_is_missing(directory: Path) -> None:
    measure_macs(directory)
    skip(directory, "latency")
    assert status(directory) == ("ok", f"latency is skipped: {WHY}")
    row = second(directory)
    assert row["gmacs"] > 0
    assert pd.isna(row["latency_ms"])
    assert not any_failed(load(directory).table)


def test_a_failure_counts_beside_what_was_skipped(directory: Path) -> None:
    fail(directory, "macs")
    skip(directory, "latency")
    assert status(directory) == ("failed", f"no luck; latency is skipped: {WHY}")
    assert any_failed(load(directory).table)


def test_what_succeeds_later_is_no_longer_skipped(directory: Path) -> None:
    skip(directory, "macs")
    skip(directory, "latency")
    measure_macs(directory)
    assert status(directory) == ("ok", f"latency is skipped: {WHY}")


def test_the_plan_decides_before_the_run_does(directory: Path) -> None:
    plan = read_plan(directory)
    row: PlannedRow = replace(plan.rows[1], failed="cannot be built")
    write_json(directory / PLAN, plan_json(replace(plan, rows=(plan.rows[0], row))))
    skip(directory, "macs")
    skip(directory, "latency")
    assert status(directory) == ("failed", "cannot be built")
