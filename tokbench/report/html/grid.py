"""A table of the page: what each cell shows, and by which number it is sorted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tokbench.report.digits import STEPS, decimals, number
from tokbench.report.html.headlines import LOST, SAVED, SPEEDUP
from tokbench.report.labels import labels, word
from tokbench.report.lines import TIMES

OWN = ("schedule", "site", "regime", "attention_kernel")
# What every reader asks for; what tells the rows apart stands before it, the rest is there to be asked for.
ALWAYS = ("method", "keep", "pareto", "gmacs", "gmacs_saved", "latency_ms", "speedup", "verdict", "top1", "delta_top1")
SETTINGS = ("model", "method", *OWN, "keep", "seed", "device", "dtype", "batch_size", "mode", "status", "pareto")

HEADS = {
    "batch_size": "batch",
    "gmacs": "GMACs",
    "gmacs_saved": "saved %",
    "latency_ms": "ms",
    "speedup": f"speedup {TIMES}",
    "top1": "top-1 %",
    "delta_top1": "Δ top-1",
    "pareto": "★",
}
# At equal accuracy, compute and time: the heads, and decimals.
READINGS = {
    "saved_at_equal_accuracy": (f"saved % within {LOST:g} points", 1),
    "speedup_at_equal_accuracy": (f"speedup {TIMES} there", 2),
    "delta_at_equal_compute": (f"Δ top-1 at {SAVED:g} % saved", 1),
    "delta_at_equal_time": (f"Δ top-1 at {SPEEDUP:g}{TIMES} speed", 1),
}
ENDS = ("_lo", "_hi")
# An interval's ends are named after its estimate, or after this.
STEMS = {"delta_top1": "delta"}
MANY_DIGITS = 1000
COUNTED = ("gmacs", "gmacs_method", "params_m")  # exact, so that every digit says something


@dataclass(frozen=True)
class Column:
    """A head; `more` is a column that the reader asks for."""

    head: str
    name: str
    more: bool = False


@dataclass(frozen=True)
class Cell:
    """What a cell says, behind it an interval, and the number that it is sorted by; texts are sorted as they are."""

    text: str
    note: str = ""
    order: str | None = None


@dataclass(frozen=True)
class Grid:
    """Heads and rows of the same length."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def comparison(table: pd.DataFrame) -> Grid:
    """All rows of a comparison: first what tells them apart and the answers, then what else differs between them.

    Args:
        table: As `tokbench.results.table` gives it.
    """
    named = table.assign(method=_labels(table))
    first = [name for name in dict.fromkeys((*SETTINGS, *ALWAYS)) if name in ALWAYS or _tells(named, name)]
    told = {*first, *alike(table), *(end for name in table for end in _ends(str(name)))}
    return _grid(named[[*first, *(name for name in named if name not in told)]], named, first)


def alike(table: pd.DataFrame) -> dict[str, str]:
    """What is the same in all rows that have it, by column; the grid of the comparison leaves it out."""
    values = {str(name): {text for text in table[name].map(word) if text} for name in table if name not in ALWAYS}
    return {name: min(texts) for name, texts in values.items() if len(texts) == 1 and name != "status"}


def plain(frame: pd.DataFrame) -> Grid:
    """Any frame under its own heads; columns without any value are left out."""
    return _grid(frame, frame, list(map(str, frame)))


def at_equal(frame: pd.DataFrame) -> Grid:
    """What `tokbench.report.html.headlines.equal` gives; what lies beyond the measured keeps is told as such."""
    told = [name for name in ("model", "method", "batch_size", "mode") if name == "method" or frame[name].nunique() > 1]
    rows = frame.to_dict("records")
    heads = [Column(HEADS.get(name, name), name) for name in told]
    heads += [Column(head, name) for name, (head, _) in READINGS.items()]
    cells = [[Cell(word(row[name])) for name in told] + [_reading(row, name) for name in READINGS] for row in rows]
    return Grid(tuple(heads), tuple(map(tuple, cells)))


def _labels(table: pd.DataFrame) -> pd.Series:
    """What the methods are called within their model."""
    return pd.concat([pd.Series(labels(rows), rows.index) for _, rows in table.groupby("model", sort=False)])


def _tells(named: pd.DataFrame, name: str) -> bool:
    """Whether rows are told apart by a setting: one of a method's own where the rows of one method differ in it."""
    values = named[name].map(word)
    if name == "status":
        return bool(values.ne("ok").any())
    if name in OWN:
        return bool(values.groupby([named["model"], named["method"]]).nunique().gt(1).any())
    return values[values.ne("")].nunique() > 1


def _grid(shown: pd.DataFrame, known: pd.DataFrame, first: list[str]) -> Grid:
    """The columns shown that have any value, with the intervals that are known of them."""
    columns = {str(name): _cells(known, str(name)) for name in shown}
    kept = [name for name, cells in columns.items() if any(cell.text for cell in cells)]
    heads = tuple(Column(HEADS.get(name, name.replace("_", " ")), name, name not in first) for name in kept)
    return Grid(heads, tuple(zip(*(columns[name] for name in kept), strict=True)))


def _ends(name: str) -> tuple[str, str]:
    stem = STEMS.get(name, name)
    return f"{stem}{ENDS[0]}", f"{stem}{ENDS[1]}"


def _cells(frame: pd.DataFrame, name: str) -> list[Cell]:
    column = frame[name]
    if pd.api.types.is_bool_dtype(column):
        return [
            Cell("★" if name == "pareto" else "yes", order="1") if value else Cell("", order="0") for value in column
        ]
    if not pd.api.types.is_numeric_dtype(column):
        return [Cell(word(value).lower() if name == "verdict" else word(value)) for value in column]
    missing = [math.nan] * len(frame)
    ends = [[_float(v) for v in frame[end]] if end in frame else missing for end in _ends(name)]
    return [_number(name, value, lo, hi) for value, lo, hi in zip(column, *ends, strict=True)]


def _number(name: str, value: Any, lo: float, hi: float) -> Cell:
    if pd.isna(value):
        return Cell("", order="")
    amount = float(value)
    if hi > lo:
        stem = STEMS.get(name, name)
        digits = decimals({stem: amount, f"{stem}_half": (hi - lo) / 2}, stem)
        return Cell(number(amount, digits), f"[{number(lo, digits)}, {number(hi, digits)}]", repr(amount))
    if name in STEPS:
        text = number(amount, decimals({name: amount}, name))
    elif name in ("top1", "top5", "delta_top1"):
        text = number(amount, 1)
    elif name in COUNTED:
        text = f"{amount:#.4g}"
    else:
        text = f"{amount:.0f}" if abs(amount) >= MANY_DIGITS else f"{amount:.4g}"
    return Cell(text, order=repr(amount))


def _reading(row: dict[Any, Any], name: str) -> Cell:
    """A reading with its interval, of which an end may be open."""
    digits = READINGS[name][1]
    value, lo, hi = (_float(row[f"{name}{end}"]) for end in ("", *ENDS))
    most = _float(row["saved_measured"]) if name == "saved_at_equal_accuracy" else math.nan
    least = f"≥ {number(most, digits)}" if not math.isnan(most) else ""
    ends = [number(end, digits) or least for end in (lo, hi)]
    note = f"[{', '.join(end or '…' for end in ends)}]" if any(ends) and ends != [least, least] else ""
    if not math.isnan(value):
        return Cell(number(value, digits), note, repr(value))
    return Cell(least, note, "" if math.isnan(most) else repr(most))


def _float(value: Any) -> float:
    return math.nan if pd.isna(value) else float(value)
