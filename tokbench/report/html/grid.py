"""The sortable tables of the page: the text of each cell, and the number that it is sorted by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tokbench.kinds.base import Column
from tokbench.names import TIMES
from tokbench.report.digits import decimals, number
from tokbench.report.html.headlines import EQUAL_ACCURACY_LOSS, EQUAL_COMPUTE_SAVING, EQUAL_TIME_SPEEDUP
from tokbench.report.labels import cell_text, labels
from tokbench.results.columns import COLUMNS

METHOD_SPECIFIC = ("schedule", "site", "regime", "attention_kernel")
# The columns that are always shown, besides those that identify a row. The reader can add the others.
ALWAYS = (
    *("method", "keep", "pareto", "gmacs", "gmacs_saved", "latency_ms", "plain_latency_ms"),
    *("ideal_speedup", "speedup", "verdict", "choosing_share", "top1", "delta_top1"),
)
IDENTIFYING = (
    *("run", "model", "method", *METHOD_SPECIFIC, "keep", "seed", "device", "dtype", "batch_size", "mode", "status"),
    "pareto",
)
# The readings at equal accuracy, compute and time: headings and decimals.
READING_COLUMNS = {
    "saved_at_equal_accuracy": (f"saved % within {EQUAL_ACCURACY_LOSS:g} points", 1),
    "speedup_at_equal_accuracy": (f"speedup {TIMES} there", 2),
    "delta_at_equal_compute": (f"Δ top-1 at {EQUAL_COMPUTE_SAVING:g} % saved", 1),
    "delta_at_equal_time": (f"Δ top-1 at {EQUAL_TIME_SPEEDUP:g}{TIMES} speed", 1),
}
SUFFIXES = ("_lo", "_hi")
MANY_DIGITS = 1000


@dataclass(frozen=True)
class GridColumn:
    """A column: its heading, its name in the table, and whether it is hidden until the reader selects it."""

    heading: str
    name: str
    optional: bool = False


@dataclass(frozen=True)
class GridCell:
    """A cell: its text, the interval behind it, and the number that it is sorted by; None sorts by the text."""

    text: str
    note: str = ""
    order: str | None = None


@dataclass(frozen=True)
class Grid:
    """Columns, and rows of as many cells."""

    columns: tuple[GridColumn, ...]
    rows: tuple[tuple[GridCell, ...], ...]


def comparison_grid(table: pd.DataFrame) -> Grid:
    """All rows of a comparison: first the columns that identify them and the results, then the others that differ.

    Args:
        table: As `tokbench.results.table` gives it.
    """
    named = table.assign(method=_method_labels(table))
    first = [
        name
        for name in dict.fromkeys((*IDENTIFYING, *ALWAYS))
        if name in named and (name in ALWAYS or _distinguishes(named, name))
    ]
    left_out = {*constant_columns(table), *(end for name in table for end in _column(str(name)).ends or ())}
    others = [name for name in named if name not in {*first, *left_out}]
    return _grid(named[[*first, *others]], named, first)


def selected_grid(table: pd.DataFrame, names: Sequence[str]) -> Grid:
    """Some columns of a comparison's rows, in this order, as far as any row has a value.

    Args:
        table: Rows with all columns, among them the ends of intervals.
        names: The columns to show.
    """
    return _grid(table[list(names)], table, list(names))


def constant_columns(table: pd.DataFrame) -> dict[str, str]:
    """The columns with the same value in all rows that have one, with that value; `comparison_grid` omits them."""
    values = {str(name): {text for text in table[name].map(cell_text) if text} for name in table if name not in ALWAYS}
    return {name: min(texts) for name, texts in values.items() if len(texts) == 1 and name != "status"}


def simple_grid(frame: pd.DataFrame) -> Grid:
    """Any frame with its own column names as headings; columns without any value are omitted."""
    return _grid(frame, frame, list(map(str, frame)))


def at_equal_grid(frame: pd.DataFrame) -> Grid:
    """The table of `tokbench.report.html.headlines.at_equal`; `≥` marks readings beyond the measured keeps."""
    settings = ("model", "method", "batch_size", "mode")
    names = [name for name in settings if name == "method" or frame[name].nunique() > 1]
    rows = frame.to_dict("records")
    columns = [GridColumn(_heading(name), name) for name in names]
    columns += [GridColumn(heading, name) for name, (heading, _) in READING_COLUMNS.items()]
    cells = [
        [GridCell(cell_text(row[name])) for name in names] + [_reading_cell(row, name) for name in READING_COLUMNS]
        for row in rows
    ]
    return Grid(tuple(columns), tuple(map(tuple, cells)))


def _method_labels(table: pd.DataFrame) -> pd.Series:
    """The methods' labels, which are unique within a model."""
    return pd.concat([pd.Series(labels(rows), rows.index) for _, rows in table.groupby("model", sort=False)])


def _distinguishes(named: pd.DataFrame, name: str) -> bool:
    """Whether rows differ in a setting; settings of a method count only if the rows of one method differ."""
    values = named[name].map(cell_text)
    if name == "status":
        return bool(values.ne("ok").any())
    if name in METHOD_SPECIFIC:
        return bool(values.groupby([named["model"], named["method"]]).nunique().gt(1).any())
    return values[values.ne("")].nunique() > 1


def _grid(shown: pd.DataFrame, known: pd.DataFrame, first: list[str]) -> Grid:
    """A grid of the columns of `shown` that have any value.

    Args:
        shown: The columns to show.
        known: The same rows with all columns, among them the ends of intervals.
        first: The columns that are shown from the start.
    """
    cells = {str(name): _column_cells(known, str(name)) for name in shown}
    kept = [name for name, column in cells.items() if any(cell.text for cell in column)]
    columns = tuple(GridColumn(_heading(name), name, name not in first) for name in kept)
    return Grid(columns, tuple(zip(*(cells[name] for name in kept), strict=True)))


def _column(name: str) -> Column:
    """A column of the table; a frame of another kind may have others."""
    return COLUMNS.get(name, Column(name))


def _heading(name: str) -> str:
    column = _column(name)
    # The page shows the amount where the tables show a percentage of another column.
    return column.name.replace("_", " ") if column.share_of else f"{column.title} {column.unit}".strip()


def _column_cells(frame: pd.DataFrame, name: str) -> list[GridCell]:
    column = frame[name]
    if pd.api.types.is_bool_dtype(column):
        return [
            GridCell("★" if name == "pareto" else "yes", order="1") if value else GridCell("", order="0")
            for value in column
        ]
    if not pd.api.types.is_numeric_dtype(column):
        return [GridCell(cell_text(value).lower() if name == "verdict" else cell_text(value)) for value in column]
    missing = [math.nan] * len(frame)
    ends = [
        [_float(value) for value in frame[end]] if end in frame else missing
        for end in _column(name).ends or (f"{name}_lo", f"{name}_hi")
    ]
    return [_number_cell(name, value, lo, hi) for value, lo, hi in zip(column, *ends, strict=True)]


def _number_cell(name: str, value: Any, lo: float, hi: float) -> GridCell:
    if pd.isna(value):
        return GridCell("", order="")
    amount = float(value)
    column = _column(name)
    if hi > lo:
        stem = column.interval or name
        digits = decimals({stem: amount, f"{stem}_half": (hi - lo) / 2}, stem)
        return GridCell(number(amount, digits), f"[{number(lo, digits)}, {number(hi, digits)}]", repr(amount))
    if column.exact or column.share_of:
        text = f"{amount:#.4g}"
    elif column.step is not None:
        text = number(amount, decimals({name: amount}, name))
    elif column.decimals is not None:
        text = number(amount, column.decimals)
    else:
        text = f"{amount:.0f}" if abs(amount) >= MANY_DIGITS else f"{amount:.4g}"
    return GridCell(text, order=repr(amount))


def _reading_cell(row: dict[Any, Any], name: str) -> GridCell:
    """A reading with its interval; `≥` and `…` mark open ends."""
    digits = READING_COLUMNS[name][1]
    value, lo, hi = (_float(row[f"{name}{end}"]) for end in ("", *SUFFIXES))
    most = _float(row["saved_measured"]) if name == "saved_at_equal_accuracy" else math.nan
    least = f"≥ {number(most, digits)}" if not math.isnan(most) else ""
    ends = [number(end, digits) or least for end in (lo, hi)]
    note = f"[{', '.join(end or '…' for end in ends)}]" if any(ends) and ends != [least, least] else ""
    if not math.isnan(value):
        return GridCell(number(value, digits), note, repr(value))
    return GridCell(least, note, "" if math.isnan(most) else repr(most))


def _float(value: Any) -> float:
    return math.nan if pd.isna(value) else float(value)
