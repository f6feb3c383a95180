"""A new kind of measurement is one object: everything else loops over kinds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tokbench.comparison import Comparison, carry_out, plan_comparison
from tokbench.config import load_config
from tokbench.distributed.parts import divide, share
from tokbench.kinds import KINDS
from tokbench.kinds.base import Column, Conditions, Kind, Pace
from tokbench.results import columns, load, table
from tokbench.results.merge import merge
from tokbench.results.store import Records
from tokbench.run.estimate import estimate_seconds


@dataclass(frozen=True)
class ChargeRecord:
    coulombs: float


class Charge(Kind[ChargeRecord]):
    """A stand-in for a meter: the charge is the number of blocks times the batch size."""

    name = "charge"
    record = ChargeRecord
    exclusive = True
    columns = (Column("coulombs", heading="charge", unit="C", step=0.1, dropped=1),)

    def wanted(self, row: Any, suite: Any, device: Any) -> bool:
        return True

    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        return {**conditions.method, **conditions.device, "batch": conditions.batch_size}

    def seconds(self, rows: Sequence[Any], pace: Pace) -> float:
        return 1000.0 * len(rows)

    def measure_row(self, row: Any, bench: Any) -> ChargeRecord:
        if row.cell.variant.method == "random_selection":
            raise RuntimeError("the meter is out of reach")
        return ChargeRecord(float(len(bench.build(row).vit.blocks) * row.cell.batch_size))

    def fill(self, row: Any, plain: Any, results: Any) -> dict[str, Any]:
        record = results.record(self, row)
        return {} if record is None else {"coulombs": record.coulombs}

    def remarks(self, row: Any, results: Any) -> list[str]:
        return ["measured by a stand-in"] if results.record(self, row) else []


@pytest.fixture
def charge(monkeypatch: pytest.MonkeyPatch) -> Charge:
    """Registered as its file in tokbench/kinds would be."""
    kind = Charge()
    monkeypatch.setitem(KINDS, kind.name, kind)
    every = columns._ordered()
    for module in (columns, table):
        monkeypatch.setattr(module, "COLUMNS", every)
        monkeypatch.setattr(module, "TYPES", {name: column.dtype for name, column in every.items()})
    return kind


def planned(**changes: Any) -> Comparison:
    config = load_config()
    quick = {"methods": ["grid_pooling", "random_selection"], "keep": [0.5], "seeds": [0], "only": ["macs"]}
    quick |= {"models": ["digits_deit"], "baselines": ["none"]}
    return plan_comparison(config.suite("embedded", {**quick, "batch_size": [2], **changes}), config)


def test_it_is_planned_measured_tabled_divided_estimated_and_merged(charge: Charge, tmp_path: Path) -> None:
    comparison = planned()
    assert all("charge" in row.keys for row in comparison.prepared.rows)
    assert estimate_seconds(comparison.prepared) > 3000
    parts = divide(comparison.prepared, Records(tmp_path), 1)
    assert [part.exclusive for part in parts if "charge" in part.kinds] == [True]
    assert "charge" in share(comparison.prepared, "1/2").kinds
    assert "charge" not in share(comparison.prepared, "2/2").kinds
    results = carry_out(comparison, tmp_path / "one").results
    written = pd.read_parquet(tmp_path / "one/table.parquet")
    assert written.columns[-1] == "coulombs"
    assert results.table["coulombs"].tolist()[:2] == [24.0, 24.0]
    assert results.table["coulombs"].isna().tolist()[2]
    assert results.table["status"].tolist() == ["ok", "ok", "failed"]
    assert "meter is out of reach" in results.table["reason"][2]
    assert "measured by a stand-in" in results.table["remarks"][0]
    carry_out(planned(methods=["grid_pooling"]), tmp_path / "two")
    joined = merge([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
    assert joined.table["coulombs"].tolist()[:2] == [24.0, 24.0]
    assert load(tmp_path / "both").record(charge, joined.plan.rows[0]) == ChargeRecord(24.0)


def test_it_is_measured_once(charge: Charge, tmp_path: Path) -> None:
    carry_out(planned(methods=["grid_pooling"]), tmp_path)
    before = (tmp_path / "records.jsonl").read_bytes()
    carry_out(planned(methods=["grid_pooling"]), tmp_path)
    assert (tmp_path / "records.jsonl").read_bytes() == before
    carry_out(planned(methods=["grid_pooling"], batch_size=[3]), tmp_path)
    assert (tmp_path / "records.jsonl").read_bytes().count(b'"charge"') == before.count(b'"charge"') + 2
