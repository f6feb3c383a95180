"""A method against the others, as lines of text: the common part of the terminal's table and of the page's."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tokbench.names import PLAIN
from tokbench.report.digits import decimals, number
from tokbench.report.labels import cell_text, series
from tokbench.results.versus import NOT_COMPARABLE, UNDECIDED
from tokbench.schedule_text import names_cost
from tokbench.stats.pareto import EQUAL_COST, equal_cost

LEAST_P = 0.001
NEVER = "never"
NOT_COMPARED = "not compared"
COLUMNS = {
    "method": "method",
    "keep": "keep, budget",
    "difference": "Δ top-1",
    "flips": "won/lost",
    "p": "p",
    "verdict": "verdict",
    "needed": "images needed",
    "compute": "unequal GMACs",
}
"""The headings of a table of `VersusLine`, by the line's attribute."""


@dataclass(frozen=True)
class VersusLine:
    """One comparison as text; `interval` belongs to the difference, and `compute` is empty where both have the same."""

    method: str
    keep: str
    difference: str
    interval: str
    flips: str
    p: str
    verdict: str
    needed: str
    compute: str


@dataclass(frozen=True)
class VersusBlock:
    """The lines of one model against one method.

    Attributes:
        model: Its name in the table.
        versus: The method that the others are compared with.
        shared: What all lines share: their schedule, the number of images.
        lines: The comparisons.
        notes: How to read the lines, and what could not be compared: labels and texts.
    """

    model: str
    versus: str
    shared: str
    lines: tuple[VersusLine, ...]
    notes: tuple[tuple[str, str], ...]


def versus_blocks(frame: pd.DataFrame) -> Iterator[VersusBlock]:
    """The blocks of what `tokbench.results.versus.versus` gives, or of several of them joined."""
    for (model, versus), block in frame.groupby(["model", "versus"], sort=False, dropna=False):
        rows = block.assign(series=series(block)).to_dict("records")
        compared = [row for row in rows if row["verdict"] != NOT_COMPARABLE]
        yield VersusBlock(
            cell_text(model),
            cell_text(versus),
            _shared(compared),
            tuple(map(_line, compared)),
            (*_notes(compared, cell_text(versus)), *_left_out(rows)),
        )


def _line(row: Mapping[Hashable, Any]) -> VersusLine:
    half = (row["delta_hi"] - row["delta_lo"]) / 2
    digits = decimals({"delta": row["delta_top1"], "delta_half": half}, "delta")
    lo, hi = (number(row[name], digits) for name in ("delta_lo", "delta_hi"))
    return VersusLine(
        method=row["series"],
        keep="" if row["method"] == PLAIN else _keep_or_budget(row),
        difference=number(row["delta_top1"], digits),
        interval=f"[{lo}, {hi}]",
        flips=f"{row['gained']}/{row['lost']}",
        p=f"{row['p']:.3f}" if row["p"] >= LEAST_P else f"<{LEAST_P:g}",
        verdict=row["verdict"],
        needed=_needed(row),
        compute=f"{row['gmacs']:#.3g} / {row['versus_gmacs']:#.3g}" if _is_unequal(row) else "",
    )


def _keep_or_budget(row: Mapping[Hashable, Any]) -> str:
    return row["schedule"] if names_cost(row["schedule"]) else cell_text(row["keep"])


def _needed(row: Mapping[Hashable, Any]) -> str:
    """`~4,000`, with two digits, rounded up."""
    if row["verdict"] != UNDECIDED:
        return ""
    if pd.isna(row["images_needed"]):
        return NEVER
    needed = int(row["images_needed"])
    step = 10 ** max(0, len(str(needed)) - 2)
    return f"~{math.ceil(needed / step) * step:,}"


def _is_unequal(row: Mapping[Hashable, Any]) -> bool:
    own, other = row["gmacs"], row["versus_gmacs"]
    return not (pd.isna(own) or pd.isna(other) or equal_cost(own, other))


def _shared(rows: Sequence[Mapping[Hashable, Any]]) -> str:
    """The schedule, where all have the same, and the number of images."""
    schedules = {cell_text(row["schedule"]) for row in rows if not names_cost(row["schedule"])}
    counts = sorted({int(row["images"]) for row in rows})
    images = (
        f"{counts[0]:,} images" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} images" if counts else ""
    )
    return " · ".join(filter(None, (schedules.pop() if len(schedules) == 1 else "", images)))


def _left_out(rows: Sequence[Mapping[Hashable, Any]]) -> Iterator[tuple[str, str]]:
    """What could not be compared, once for each reason."""
    keeps_by_note: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row["verdict"] == NOT_COMPARABLE:
            keeps = keeps_by_note.setdefault(row["note"], {}).setdefault(f"{row['series']} {row['schedule']}", [])
            keeps += filter(None, [cell_text(row["keep"])])
    for note, names in keeps_by_note.items():
        listed = (f"{name} keep {', '.join(dict.fromkeys(keeps))}" if keeps else name for name, keeps in names.items())
        yield NOT_COMPARED, f"{'; '.join(listed)} — {note}"


def _notes(rows: Sequence[Mapping[Hashable, Any]], versus: str) -> Iterator[tuple[str, str]]:
    """How to read the lines."""
    if not rows:
        return
    several = any(row["seeds"] > 1 for row in rows)
    yield "Δ top-1", f"points above {versus} on the same images, with 95 % interval; p: McNemar's exact test"
    yield (
        "won/lost",
        f"images that only the method, or only {versus}, has right{', or has right for more seeds' if several else ''}",
    )
    if several:
        yield (
            "several seeds",
            "an image counts once, with the mean of its answers; interval and p of the mean difference",
        )
    if any(row["verdict"] == UNDECIDED for row in rows):
        yield "images needed", "about so many would decide a difference of this size; never, where there is none"
    if any(map(_is_unequal, rows)):
        yield "unequal GMACs", f"of the method / of {versus}, where they differ by more than {100 * EQUAL_COST:g} %"
    if len(rows) > 1:
        yield "verdict", "each row is a test of its own: of 20 equal methods, one would look decided"
