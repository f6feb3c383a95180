"""The leaderboard: every row of every run in one table, to filter and sort, with its Pareto plots.

The rows are a script that the page loads, because a page opened from disk may load scripts but no data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tokbench.report.html.grid import GridCell, selected_grid
from tokbench.report.labels import cell_text, labels
from tokbench.report.marks import ON_FRONT
from tokbench.schedule_text import takes_keep
from website.agreement import notice
from website.runs import data, machine, record_path
from website.source import Source

PAGE = "leaderboard.md"
TEMPLATE = "leaderboard.md.jinja"
ROWS = "leaderboard-data.js"

BUDGETS = (
    ("less than 20 %", 20.0),
    ("20 to 35 %", 35.0),
    ("35 to 45 %", 45.0),
    ("45 to 55 %", 55.0),
    ("55 % and more", 101.0),
)
"""Classes of compute: the percentage of the plain model's MACs that a row saves, and the bound that it is below."""


@dataclass(frozen=True)
class Filter:
    """A choice above the table: the column that it looks at, and its label."""

    column: str
    label: str


FILTERS = (
    Filter("model", "Model"),
    Filter("data", "Data"),
    Filter("method_name", "Method"),
    Filter("regime", "Regime"),
    Filter("budget", "Compute saved"),
    Filter("schedule", "Schedule"),
    Filter("keep", "Keep"),
    Filter("machine", "Machine"),
    Filter("mode", "Mode"),
    Filter("status", "Status"),
    Filter("run", "Run"),
)
SHOWN = (
    *("method", "pareto", "model", "data", "regime", "schedule", "keep", "gmacs", "gmacs_saved", "speedup"),
    *("top1", "delta_top1", "agreement", "machine", "timing"),
)
"""The columns of the page's table, in order."""


def pages(source: Source) -> dict[str, str]:
    """The leaderboard and its rows."""
    rows = leaderboard_rows(source)
    return {
        PAGE: _page(rows, source),
        ROWS: f"window.leaderboard = {json.dumps(_data(rows), separators=(',', ':'))};\n",
    }


def leaderboard_rows(source: Source) -> pd.DataFrame:
    """All rows of all runs, with the columns of their tables and those that the page adds.

    Args:
        source: What the site is made from.

    Returns:
        Besides the columns of a run's table `run` (its anchor), `record` (where its record is), `machine`, `data`,
        `method_name`, `timing` and `budget`; `method` has the parameters in which a model's rows differ.
    """
    tables = [
        run.table.assign(
            run=source.anchor(run),
            record=[record_path(source, run, number) for number in range(len(run.table))],
            machine=machine(run),
            data=data(run),
        )
        for run in source.runs
    ]
    rows = pd.concat(tables, ignore_index=True)
    names = [pd.Series(labels(part), part.index) for _, part in rows.groupby("model", sort=False)]
    return rows.assign(
        method_name=rows["method"],
        method=pd.concat(names).sort_index(),
        timing=[f"{row.mode}, {row.dtype}, batch {row.batch_size}" for row in rows.itertuples()],
        budget=[_budget(saved) for saved in rows["gmacs_saved"]],
    )


def _budget(saved: float) -> str:
    """The label of the class of compute that a row belongs to; empty without MACs."""
    return next((label for label, bound in BUDGETS if saved < bound), "")


def _data(rows: pd.DataFrame) -> dict[str, Any]:
    """The rows for the page's script: each column as its distinct cells, and for each row the position among them."""
    grid = selected_grid(rows, SHOWN)
    shown = {column.name: cells for column, cells in zip(grid.columns, zip(*grid.rows, strict=True), strict=True)}
    columns = [
        {"name": column.name, "heading": column.heading, **_coded(_cell(cell) for cell in shown[column.name])}
        for column in grid.columns
    ]
    hidden = {name: _coded(map(cell_text, rows[name])) for name in ("run", "record", "seed", "reason", "pareto_time")}
    hidden |= {one.column: _coded(map(cell_text, _to_choose(rows, one.column))) for one in FILTERS}
    return {"columns": columns, "filters": [one.column for one in FILTERS], "hidden": hidden}


def _cell(cell: GridCell) -> tuple[str, str, str | None]:
    return cell.text, cell.note, cell.order


def _coded(values: Iterable[Any]) -> dict[str, Any]:
    positions: dict[Any, int] = {}
    codes = [positions.setdefault(value, len(positions)) for value in values]
    return {"values": list(positions), "codes": codes}


def _page(rows: pd.DataFrame, source: Source) -> str:
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(TEMPLATE)
    main = str(rows["model"].mode().iloc[0])
    return template.render(
        filters=[(one, _choices(_to_choose(rows, one.column), one.column)) for one in FILTERS],
        defaults={"model": main},
        rows=len(rows),
        runs=len(source.runs),
        on_front=ON_FRONT,
        notice=notice(source),
    )


def _to_choose(rows: pd.DataFrame, column: str) -> pd.Series:
    """What a filter looks at: the column, but a keep only where it was set, not where a budget was solved for it."""
    values = rows[column]
    if column != "keep":
        return values
    return values.where(rows["schedule"].map(cell_text).map(lambda text: text != "" and takes_keep(text)))


def _choices(values: pd.Series, column: str) -> list[str]:
    """What can be chosen in a column: in the order of its size where it has one, else sorted."""
    texts = dict.fromkeys(filter(None, map(cell_text, values)))
    if column == "budget":
        return [label for label, _ in BUDGETS if label in texts]
    return sorted(texts, key=lambda text: (float(text), "")) if column == "keep" else sorted(texts)
