"""What the charts draw: a point for each measured setting, and what it says when the reader points at it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from tokbench.names import EAGER, PLAIN
from tokbench.report.charts.style import PLAIN_LABEL, label
from tokbench.report.digits import Line, decimals, number
from tokbench.report.labels import series, word
from tokbench.schedule import takes_keep

TIMES = "\N{MULTIPLICATION SIGN}"

SETTING = ["series", "asked"]
SETUP = ["batch_size", "mode"]

TEXTS = ["method", "params", "regime", "site", "schedule", "status", "verdict", "tokens_per_block"]
NUMBERS = [
    *("keep", "gmacs", "gmacs_lo", "gmacs_hi", "gmacs_method", "gmacs_saved"),
    *("latency_ms", "latency_ms_lo", "latency_ms_hi", "speedup", "speedup_lo", "speedup_hi"),
    *("top1", "top1_lo", "top1_hi", "top1_sd", "delta_top1", "delta_lo", "delta_hi"),
]

# Characters and lines of parameters, and times of other batch sizes and modes: a label that hides no whole plot.
WIDTH = 58
MAX_LINES = 4
MAX_TIMES = 6


def complete(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with all columns that charts are drawn from; results of older versions lack some.

    Args:
        rows: A table's rows of one model.

    Returns:
        The rows in their order; texts are None where there is none, numbers floats. Besides the table's columns
        `plain`, the untouched model; `asked`, what the schedule was asked for: its keep, or all of it where that
        says how much (`budget(0.7)`); and `series`, what belongs on one curve.

    Raises:
        ValueError: There are rows of several models.
    """
    if rows["model"].nunique() > 1:
        raise ValueError("a chart takes the rows of one model")
    if "mode" not in rows:  # written before there were three of them
        rows = rows.assign(mode=np.where(rows["compiled"].eq(True), "compile", EAGER))
    rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, *TEXTS, *NUMBERS])))
    texts = {name: pd.Series([word(cell) or None for cell in rows[name]], rows.index, dtype=object) for name in TEXTS}
    numbers = {name: pd.to_numeric(rows[name]).astype(float) for name in NUMBERS}
    rows = rows.assign(**texts, **numbers, pareto=rows["pareto"].eq(True), series=series(rows))
    return rows.assign(
        plain=rows["method"].eq(PLAIN) & rows["params"].isna(),
        asked=[_asked(*pair) for pair in zip(rows["schedule"], rows["keep"], strict=True)],
    )


def points(rows: pd.DataFrame, by: Sequence[str] = (*SETTING, *SETUP)) -> pd.DataFrame:
    """The measured rows, those that differ in nothing but the seed as one: their mean, interval ends included.

    Args:
        rows: What `complete` gives.
        by: The columns that tell points apart. Neither compute nor accuracy depends on `SETUP`.

    Returns:
        A line a point, in the order in which they come, with the texts and numbers of the table, `delta` for
        `delta_top1`, `seeds`, and as `NAME_half` half the width of each interval.
    """
    cells = rows[rows["status"] == "ok"].groupby(list(by), sort=False, dropna=False)
    drawn = cells[NUMBERS].mean().rename(columns={"delta_top1": "delta"})
    drawn[TEXTS] = cells[TEXTS].first()
    drawn["pareto"], drawn["plain"], drawn["seeds"] = (
        cells["pareto"].any(),
        cells["plain"].any(),
        cells["seed"].nunique(),
    )
    for name in ("latency_ms", "speedup", "top1", "delta"):
        drawn[f"{name}_half"] = (drawn[f"{name}_hi"] - drawn[f"{name}_lo"]) / 2
    drawn["gmacs_half"] = 10 ** (np.floor(np.log10(drawn["gmacs"].max())) - 2)  # three digits of the largest
    return drawn.reset_index()


def curves(rows: pd.DataFrame) -> list[str]:
    """All series but the plain model, measured or not, in the table's order; of what `complete` gives."""
    return list(dict.fromkeys(rows.loc[~rows["plain"], "series"]))


def tell(line: Line, times: Iterable[Line]) -> str:
    """What a point says: its method and settings, compute, accuracy and times.

    Args:
        line: One of `points`.
        times: The points of the same setting, of which the times are told.

    Returns:
        Lines divided by `<br>`; what users wrote is escaped and cut.
    """
    plain = line["plain"]
    seeds = f"{line['seeds']} seeds" if line["seeds"] > 1 else ""
    keep = "" if plain or not word(line["keep"]) else f"keep {word(line['keep'])}"
    settings = [keep, *(word(line[name]) for name in ("schedule", "site", "regime")), seeds]
    saved = "" if plain else _number(line, "gmacs_saved", " % saved")
    told = [
        f"<b>{PLAIN_LABEL if plain else label(line['series'], WIDTH)}</b>",
        *wrapped(word(line["params"])),
        *wrapped(" · ".join(filter(None, settings if not plain else []))),
        ", ".join(filter(None, [_number(line, "gmacs", " GMACs"), saved])),
        _number(line, "top1", " % top-1") + _spread(line),
        "" if plain else _number(line, "delta", " points against the plain model"),
    ]
    timed = [_time(time) for time in times if time["latency_ms"] > 0]
    more = [f"and {len(timed) - MAX_TIMES} more"] if len(timed) > MAX_TIMES else []
    return "<br>".join(filter(None, [*told, *timed[:MAX_TIMES], *more]))


def tell_all(drawn: pd.DataFrame, timed: pd.DataFrame) -> pd.DataFrame:
    """Points that stand for all batch sizes and modes, with what they say as `told`.

    Args:
        drawn: Points by `SETTING`.
        timed: The same by `SETUP` too.
    """
    times: dict[tuple[str, str], list[Line]] = {}
    for one in timed.to_dict("records"):
        times.setdefault((one["series"], one["asked"]), []).append(one)
    return drawn.assign(told=[tell(one, times[one["series"], one["asked"]]) for one in drawn.to_dict("records")])


def setup(line: Line) -> str:
    """A point's batch size and, unless it is the usual one, its mode."""
    return f"batch {word(line['batch_size'])}" + ("" if line["mode"] == EAGER else f" {label(word(line['mode']))}")


def _asked(schedule: str | None, keep: float) -> str:
    return schedule if schedule and not takes_keep(schedule) else f"keep {word(keep)}"


def wrapped(text: str) -> list[str]:
    """A text's first lines, escaped; it breaks after commas and, where there are none, anywhere."""
    lines = textwrap.wrap(text.replace(",", ", "), WIDTH, break_on_hyphens=False)
    cut = [*lines[:MAX_LINES], "…"] if len(lines) > MAX_LINES else lines
    return [label(line, WIDTH) for line in cut]


def _number(line: Line, name: str, unit: str) -> str:
    """A number with its interval, where it has one."""
    digits = decimals(line, name)
    value = number(line[name], digits)
    lo, hi = (number(line.get(f"{name}_{end}", np.nan), digits) for end in ("lo", "hi"))
    return f"{value}{unit}{f' [{lo}, {hi}]' if lo and hi else ''}" if value else ""


def _spread(line: Line) -> str:
    told = number(line["top1_sd"], decimals(line, "top1")) if line["seeds"] > 1 else ""
    return f", ±{told} over seeds" if told else ""


def _time(line: Line) -> str:
    speedup = "" if line["plain"] else _number(line, "speedup", TIMES)
    verdict = word(line["verdict"]).lower() if speedup else ""
    return f"{setup(line)}: " + ", ".join(filter(None, [_number(line, "latency_ms", " ms"), speedup, verdict]))
