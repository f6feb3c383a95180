"""The points of the charts, one for each measured setting, and their hover texts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from tokbench.names import EAGER, PLAIN, TIMES
from tokbench.report.charts.style import PLAIN_LABEL, label
from tokbench.report.digits import RowValues, decimals, number, with_half_widths
from tokbench.report.labels import cell_text, series
from tokbench.report.marks import MARKS
from tokbench.rows import plain_models, with_fewer_pixels
from tokbench.schedule_text import takes_keep

SERIES_AND_KEEP = ["series", "keep_label"]
BATCH_AND_MODE = ["batch_size", "mode"]

METHOD_COLUMNS = ["method", "params", "regime", "site", "schedule"]
"""The columns that determine a row's series."""

TEXTS = [*METHOD_COLUMNS, "status", "verdict", "tokens_per_block"]
NUMBERS = [
    *("keep", "gmacs", "gmacs_lo", "gmacs_hi", "gmacs_method", "gmacs_saved"),
    *("latency_ms", "latency_ms_lo", "latency_ms_hi", "speedup", "speedup_lo", "speedup_hi"),
    *("top1", "top1_lo", "top1_hi", "top1_sd", "delta_top1", "delta_lo", "delta_hi"),
]

# Limits for hover texts, so that they never cover the whole plot: characters per line, lines of one text, and times of
# other batch sizes and modes.
WIDTH = 58
MAX_LINES = 4
MAX_TIMES = 6


def prepare_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Convert a table's rows for the charts.

    Args:
        rows: A table's rows of one model.

    Returns:
        The rows in the same order. Missing texts are None, numbers are floats. Additional columns: `plain`, whether it
        is the plain model; `keep_label`, its keep, or its schedule if that fixes the token counts (`budget(0.7)`); and
        `series`, the curve it belongs to.

    Raises:
        ValueError: There are rows of several models.
    """
    if rows["model"].nunique() > 1:
        raise ValueError("a chart takes the rows of one model")
    texts = {
        name: pd.Series([cell_text(cell) or None for cell in rows[name]], rows.index, dtype=object) for name in TEXTS
    }
    numbers = {name: pd.to_numeric(rows[name]).astype(float) for name in NUMBERS}
    marks = {name: rows[name].eq(True) for name in MARKS}
    rows = rows.assign(**texts, **numbers, **marks, series=series(rows))
    return rows.assign(
        plain=plain_models(rows),
        keep_label=[_keep_label(*pair) for pair in zip(rows["schedule"], rows["keep"], strict=True)],
    )


def chart_points(rows: pd.DataFrame, by: Sequence[str] = (*SERIES_AND_KEEP, *BATCH_AND_MODE)) -> pd.DataFrame:
    """The measured rows, averaged over seeds, interval ends included.

    Args:
        rows: What `prepare_rows` gives.
        by: The columns that identify a point. Compute and accuracy do not depend on `BATCH_AND_MODE`.

    Returns:
        A row for each point, in order of appearance, with the texts and numbers of the table, `delta` instead of
        `delta_top1`, `seeds`, and half the width of each interval as `NAME_half`.
    """
    groups = rows[rows["status"] == "ok"].groupby(list(by), sort=False, dropna=False)
    points = groups[NUMBERS].mean().rename(columns={"delta_top1": "delta"})
    points[TEXTS] = groups[TEXTS].first()
    points[[*MARKS, "plain"]] = groups[[*MARKS, "plain"]].any()
    points["seeds"] = groups["seed"].nunique()
    return with_half_widths(points).reset_index()


def series_names(rows: pd.DataFrame) -> list[str]:
    """All series but the plain model, also those not measured, of the rows of `prepare_rows`.

    They are in the table's order, but baselines come last: the colours of methods do not depend on them.
    """
    fewer = with_fewer_pixels(rows)
    return list(dict.fromkeys([*rows.loc[~rows["plain"] & ~fewer, "series"], *rows.loc[fewer, "series"]]))


def hover_text(point: RowValues, timings: Iterable[RowValues]) -> str:
    """The hover text of a point: method and settings, compute, accuracy and times.

    Args:
        point: One of `chart_points`.
        timings: The points of the same setting whose times are listed.

    Returns:
        Lines separated by `<br>`; texts from users are escaped and cut.
    """
    plain = point["plain"]
    seeds = f"{point['seeds']} seeds" if point["seeds"] > 1 else ""
    keep = "" if point["method"] == PLAIN or not cell_text(point["keep"]) else f"keep {cell_text(point['keep'])}"
    settings = [keep, *(cell_text(point[name]) for name in ("schedule", "site", "regime")), seeds]
    saved = "" if plain else _number(point, "gmacs_saved", " % saved")
    delta = "" if plain else _number(point, "delta", " points")
    lines = [
        f"<b>{PLAIN_LABEL if plain else label(point['series'], WIDTH)}</b>",
        *wrap(cell_text(point["params"])),
        *wrap(" · ".join(filter(None, settings if not plain else []))),
        ", ".join(filter(None, [_number(point, "gmacs", " GMACs"), saved])),
        _number(point, "top1", " % top-1") + _seed_spread(point),
        f"{delta} against the plain model" if delta else "",
    ]
    times = [_time(timing) for timing in timings if timing["latency_ms"] > 0]
    more = [f"and {len(times) - MAX_TIMES} more"] if len(times) > MAX_TIMES else []
    return "<br>".join(filter(None, [*lines, *times[:MAX_TIMES], *more]))


def with_hover_text(points: pd.DataFrame, timed: pd.DataFrame) -> pd.DataFrame:
    """Add the column `hover` to points that stand for all batch sizes and modes.

    Args:
        points: Points by `SERIES_AND_KEEP`.
        timed: The same points, split by `BATCH_AND_MODE`.
    """
    timings: dict[tuple[str, str], list[RowValues]] = {}
    for point in timed.to_dict("records"):
        timings.setdefault((point["series"], point["keep_label"]), []).append(point)
    return points.assign(
        hover=[hover_text(point, timings[point["series"], point["keep_label"]]) for point in points.to_dict("records")]
    )


def timing_label(point: RowValues) -> str:
    """A point's batch size, and its mode unless that is eager."""
    mode = "" if point["mode"] == EAGER else f" {label(cell_text(point['mode']))}"
    return f"batch {cell_text(point['batch_size'])}{mode}"


def wrap(text: str) -> list[str]:
    """The first lines of a text, escaped; broken after commas, or anywhere if there are none."""
    lines = textwrap.wrap(text.replace(",", ", "), WIDTH, break_on_hyphens=False)
    cut = [*lines[:MAX_LINES], "…"] if len(lines) > MAX_LINES else lines
    return [label(line, WIDTH) for line in cut]


def _keep_label(schedule: str | None, keep: float) -> str:
    return schedule if schedule and not takes_keep(schedule) else f"keep {cell_text(keep)}"


def _number(point: RowValues, name: str, unit: str) -> str:
    """A number with its unit and, if known, its interval; empty if the number is missing."""
    digits = decimals(point, name)
    value = number(point[name], digits)
    lo, hi = (number(point.get(f"{name}_{end}", np.nan), digits) for end in ("lo", "hi"))
    return f"{value}{unit}{f' [{lo}, {hi}]' if lo and hi else ''}" if value else ""


def _seed_spread(point: RowValues) -> str:
    spread = number(point["top1_sd"], decimals(point, "top1")) if point["seeds"] > 1 else ""
    return f", ±{spread} over seeds" if spread else ""


def _time(point: RowValues) -> str:
    speedup = "" if point["plain"] else _number(point, "speedup", TIMES)
    verdict = cell_text(point["verdict"]).lower() if speedup else ""
    return f"{timing_label(point)}: " + ", ".join(filter(None, [_number(point, "latency_ms", " ms"), speedup, verdict]))
