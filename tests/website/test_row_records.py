"""A row's record has what was measured of it, and a command that measures just that row."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from website.records import records, row_commands
from website.source import Source

from tokbench.kinds import KINDS
from tokbench.outcomes import RIGHT
from tokbench.results import PlannedRow, Results
from tokbench.results.plan import PLAN, plan_json, read_plan

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def embedded(source: Source) -> Results:
    return next(run for run in source.runs if source.name(run) == "reference/embedded")


def test_a_record_has_the_cells_and_the_measurements_of_its_row(embedded: Results, source: Source) -> None:
    written = [json.loads(text) for text in records(source, embedded)]
    assert len(written) == len(embedded.table)
    kinds = {kind.name: kind for kind in KINDS.values()}
    for content, planned, (_, row) in zip(written, embedded.plan.rows, embedded.table.iterrows(), strict=True):
        assert content["run"] == "reference/embedded"
        assert content["environment"] == embedded.environment
        assert content["row"] == {name: value for name, value in row.items() if pd.notna(value) and value != ""}
        outcomes = "".join(part["outcomes"] for part in content["measurements"]["accuracy"])
        assert 100 * outcomes.count(RIGHT) / len(outcomes) == pytest.approx(row["top1"])
        assert set(content["measurements"]) == {name for name in planned.keys if name in kinds}


@pytest.fixture
def cells(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: Results
) -> Callable[..., list[PlannedRow]]:
    """The rows that a command would measure; the time that they take is not estimated."""
    monkeypatch.setattr("tokbench.run.estimate.estimate_seconds", lambda prepared: 0.0)

    def planned(command: str) -> list[PlannedRow]:
        program, *arguments = shlex.split(command)
        assert program == "tokbench"
        code, out, err = run(*arguments, "--plan", "--json")
        assert code == 0, err
        content = {**plan_json(embedded.plan), "rows": json.loads(out)["cells"]}
        (tmp_path / PLAN).write_text(json.dumps(content))
        return list(read_plan(tmp_path).rows)

    return planned


@pytest.mark.parametrize(
    ("method", "keep"), [("none", 1.0), ("none(img_size=24)", 1.0), ("token_pooling", 0.5), ("random_selection", 0.3)]
)
def test_the_command_of_a_row_plans_that_row_and_its_plain_model(
    method: str, keep: float, embedded: Results, cells: Callable[..., list[PlannedRow]]
) -> None:
    def named(row: PlannedRow) -> str:
        return f"none({row.id.params})" if row.id.has_fewer_pixels else row.id.method

    rows = [row for row in embedded.plan.rows if named(row) == method and row.id.keep == keep]
    row = rows[-1]  # of several seeds the last, which is not the first of the suite's
    plain = embedded.plan.plain_of(row)
    again = cells(row_commands(embedded.plan, row).compare)
    wanted = {one.id: set(one.keys) for one in (plain, row) if one is not None}
    assert {one.id: set(one.keys) for one in again} == wanted  # the keys themselves depend on the versions
    assert len(again) == len(wanted)
