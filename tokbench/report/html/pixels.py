"""The half of a method's headline that compares it with the plain model with fewer pixels."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from tokbench.kinds.pixels import COMPUTE, PIXEL_COLUMNS, TIME
from tokbench.names import PLAIN
from tokbench.report.digits import number
from tokbench.report.html.headlines import EQUAL_COMPUTE_SAVING, Headline
from tokbench.report.labels import cell_text, series
from tokbench.rows import with_fewer_pixels
from tokbench.schedule_text import names_cost
from tokbench.stats.proportions import Interval

BEYOND = "beyond the measured resolutions"
DEARER = f"{BEYOND}, as it costs more than the plain model"
SLOWER = f"{BEYOND}, as it is slower than the plain model"
NUMBERS = [column.name for column in PIXEL_COLUMNS]


def pixel_sentence(table: pd.DataFrame, headline: Headline) -> str:
    """What a method gains over fewer pixels: `at keep 0.7, at equal compute 5.0 points [3.1, 6.9] above fewer pixels`.

    It describes one keep, that with a result whose saving of MACs is nearest to the one of the page's readings at equal
    compute. Choosing the keep with the largest gain would be selection on the reported images. Seeds are averaged, ends
    of the intervals included.

    Args:
        table: The rows of a comparison.
        headline: The method's; it says which batch size and mode the times are of.

    Returns:
        Empty where no smaller resolution was measured, or the method has no accuracies or MACs.
    """
    model = table[table["model"].eq(headline.model)]
    if not {*NUMBERS, "gmacs"} <= set(table) or not with_fewer_pixels(model).any():
        return ""
    own = model[pd.Series(series(model), index=model.index).eq(headline.method) & model["method"].ne(PLAIN)]
    own = own[own["mode"].eq(headline.mode)].dropna(subset=["gmacs_saved", "top1"])
    if headline.batch_size is not None:
        own = own[own["batch_size"].eq(headline.batch_size)]
    if own.empty:
        return ""
    settings = own.groupby(["schedule", "keep"], dropna=False, sort=False)
    keeps = settings[["gmacs_saved", "speedup", *NUMBERS]].mean().reset_index()
    known = keeps[keeps[[COMPUTE, TIME]].notna().any(axis=1)]
    if known.empty:
        return f"against fewer pixels: {BEYOND}"
    saved = known["gmacs_saved"].to_numpy(dtype=float)
    chosen = known.iloc[int(np.argmin(np.abs(saved - EQUAL_COMPUTE_SAVING)))]
    keep = _setting(chosen)
    compute = _points(chosen, COMPUTE, DEARER if chosen["gmacs_saved"] < 0 else BEYOND)
    if math.isnan(chosen["speedup"]):
        return f"{keep}at equal compute {compute}"
    time = _points(chosen, TIME, SLOWER if chosen["speedup"] < 1 else BEYOND)
    return f"{keep}at equal compute {compute}, and at equal time {time}"


def _setting(row: pd.Series) -> str:
    """`at keep 0.7, `, or the budget that the keep was solved or the schedule searched for."""
    schedule = cell_text(row["schedule"])
    if names_cost(schedule):
        return f"at {schedule}, "
    return "" if math.isnan(row["keep"]) else f"at keep {cell_text(float(row['keep']))}, "


def _points(row: pd.Series, name: str, missing: str) -> str:
    """`5.0 points [3.1, 6.9] above fewer pixels`; losses are positive numbers below."""
    found = Interval(*(float(row[f"{name}{end}"]) for end in ("", "_lo", "_hi")))
    if math.isnan(found.estimate):
        return missing
    where = "above"
    if found.estimate < 0:
        where, found = "below", Interval(-found.estimate, -found.hi, -found.lo)
    estimate, lo, hi = (number(value, 1) for value in (found.estimate, found.lo, found.hi))
    return f"{estimate} points [{lo}, {hi}] {where} fewer pixels"
