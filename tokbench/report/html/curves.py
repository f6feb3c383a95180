"""Curves of a method over its keeps, and the readings at equal accuracy, equal compute and equal time.

A curve starts at the plain model (nothing saved, nothing lost, speedup 1) and continues from the highest keep to the
lowest. Between two neighbouring keeps all numbers are interpolated linearly; nothing is extrapolated.

A reading is taken where the curve, followed from the plain model, first crosses the requested value. A method that
loses too much at one keep and recovers at a lower one therefore gets no credit beyond its first loss: the recovery may
be chance, and choosing the luckiest of many keeps would be selection on the reported images. The saving that counts is
the largest on the way to the crossing, so a keep at which the method costs more than it saves does not reduce it.

Intervals: the lower and upper ends of the points' intervals form two more curves, which are read in the same way. At
the plain model both are exact. Linear interpolation between the ends is wide enough, as the error of a weighted mean
is at most the weighted mean of the errors. The result is the set of positions at which the pointwise band does not rule
out the requested value. Its near end needs no further assumption; its far end assumes that the upper ends fall with the
keep, as a pointwise band need not hold at all points simultaneously. An end that the measured keeps do not reach is
open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tokbench.names import PLAIN
from tokbench.report.labels import cell_text, series
from tokbench.stats.proportions import Interval

# The numbers of a curve, with the columns of their intervals. MACs are counted exactly, so their interval is a point.
INTERVAL_COLUMNS = {
    "gmacs_saved": ("gmacs_saved", "gmacs_saved"),
    "delta_top1": ("delta_lo", "delta_hi"),
    "speedup": ("speedup_lo", "speedup_hi"),
}
NUMBERS = ["gmacs_saved", "delta_top1", "delta_lo", "delta_hi", "speedup", "speedup_lo", "speedup_hi", "noise_floor"]
CURVE_COLUMNS = ["series", "mode", "batch_size"]
PLAIN_POINT = {
    **{"keep": 1.0, **dict.fromkeys(NUMBERS, 0.0)},
    **{"speedup": 1.0, "speedup_lo": 1.0, "speedup_hi": 1.0, "verdict": ""},
}

# 100 * 0.007 is more than 0.7: rounding errors beyond these decimals must not move a point outside a limit.
DECIMALS = 9


@dataclass(frozen=True, eq=False)
class Curve:
    """The measurements of one method in one mode at one batch size.

    Attributes:
        model: Its name in the table.
        method: The name of the series, see `tokbench.report.labels`.
        mode: How the timed models ran: `eager`, `compile` or `cudagraph`.
        batch_size: Images in a timed batch.
        points: The plain model, then a row for each keep, falling, with the columns keep, `NUMBERS` and verdict; NaN
            where something was not measured. The seeds of a stochastic method are averaged, as are the ends of their
            intervals: the result is at least as wide as the interval of the average.
    """

    model: str
    method: str
    mode: str
    batch_size: int
    points: pd.DataFrame


@dataclass(frozen=True)
class Reading:
    """A number read off a curve, with its interval; None if it lies beyond the measured keeps."""

    estimate: float | None
    lo: float | None
    hi: float | None


def curves(table: pd.DataFrame) -> list[Curve]:
    """The curves of a comparison in the table's order, without failed and skipped rows.

    Args:
        table: The rows of a comparison, with the columns of the design's row.
    """
    found = []
    for model, rows in table.groupby("model", sort=False, dropna=False):
        named = rows.assign(series=series(rows))
        measured = _averaged(named[named["status"].eq("ok") & named["method"].ne(PLAIN)])
        for _, own in measured.groupby(CURVE_COLUMNS, sort=False, dropna=False):
            points = pd.concat([pd.DataFrame([PLAIN_POINT]), own.drop(columns=CURVE_COLUMNS)], ignore_index=True)
            first = own.iloc[0]
            found.append(Curve(str(model), first["series"], cell_text(first["mode"]), int(first["batch_size"]), points))
    return found


def curve_path(curve: Curve, *needed: str) -> pd.DataFrame:
    """The path of a curve: its points that have all of these numbers, the plain model first, indexed from 0.

    A position on a path is a fractional index: 1.5 is half-way between the first and the second point after the plain
    model.

    Args:
        curve: A curve.
        needed: Keys of `INTERVAL_COLUMNS`.
    """
    columns = [column for name in needed for column in (name, *INTERVAL_COLUMNS[name])]
    return curve.points.dropna(subset=columns, ignore_index=True)


def position_leaving(path: pd.DataFrame, name: str, limit: float) -> float:
    """The position at which a number first falls below a limit; infinite if it never does.

    Args:
        path: What `curve_path` gives.
        name: The column.
        limit: In the column's unit, not above its value at the plain model.
    """
    values = path[name].to_numpy(dtype=float)
    return _crossing(values < limit, values, limit)


def position_reaching(path: pd.DataFrame, name: str, level: float) -> float:
    """The first position at which a number is at or above a level; infinite if it never is."""
    values = path[name].to_numpy(dtype=float)
    return _crossing(values >= level, values, level)


def position_of_largest_saving(path: pd.DataFrame, end: float) -> float:
    """The position of the largest saving of MACs from the plain model to `end`, which may be infinite."""
    positions = _between(0.0, end, path)
    return float(positions[np.argmax(_interpolated(path, "gmacs_saved", positions))])


def interval_at(path: pd.DataFrame, name: str, position: float) -> Interval | None:
    """A number and its interval at a position; None if a neighbouring keep lacks it."""
    estimate, lo, hi = (float(_interpolated(path, column, [position])[0]) for column in (name, *INTERVAL_COLUMNS[name]))
    return None if math.isnan(estimate + lo + hi) else Interval(estimate, lo, hi)


def saved_at_equal_accuracy(path: pd.DataFrame, lost: float) -> Reading:
    """The largest saving of MACs, in percent, before more than `lost` points of top-1 are lost.

    Args:
        path: A path with `gmacs_saved` and `delta_top1`.
        lost: Points, at least 0.

    Returns:
        None where the limit holds down to the lowest keep, so that the saving is at least the one there.
    """
    ends = [position_leaving(path, name, -lost) for name in ("delta_top1", *INTERVAL_COLUMNS["delta_top1"])]
    positions = [None if math.isinf(end) else position_of_largest_saving(path, end) for end in ends]
    return Reading(*(None if p is None else float(_interpolated(path, "gmacs_saved", [p])[0]) for p in positions))


def delta_at_equal_compute(path: pd.DataFrame, saved: float) -> Interval | None:
    """The difference in top-1, in points, where `saved` percent of the MACs are first saved; None if they never are.

    Args:
        path: A path with `gmacs_saved` and `delta_top1`.
        saved: Percent of the plain model's MACs.
    """
    position = position_reaching(path, "gmacs_saved", saved)
    return None if math.isinf(position) else interval_at(path, "delta_top1", position)


def delta_at_equal_time(path: pd.DataFrame, speedup: float) -> Reading | None:
    """The difference in top-1, in points, where a speedup is first reached; None if it never is.

    Both the position and the accuracy there are uncertain. The interval covers the intervals of the accuracy from the
    position where the upper ends of the speedup reach it to the one where the lower ends do. It combines two intervals
    of 95 %, so its level is at least 90 %. Its lower end is open if the lower ends of the speedup never reach it.

    Args:
        path: A path with `delta_top1` and `speedup`.
        speedup: Against the plain model; above 1 is faster.
    """
    position, late, early = (
        position_reaching(path, name, speedup) for name in ("speedup", *INTERVAL_COLUMNS["speedup"])
    )
    if math.isinf(position):
        return None
    positions = _between(early, late, path)
    return Reading(
        estimate=float(_interpolated(path, "delta_top1", [position])[0]),
        lo=None if math.isinf(late) else float(_interpolated(path, "delta_lo", positions).min()),
        hi=float(_interpolated(path, "delta_hi", positions).max()),
    )


def _averaged(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each curve and keep, averaged over seeds; within a curve from the highest keep to the lowest."""
    numbers = rows[["keep", *NUMBERS]].astype(float).round(DECIMALS)
    verdicts = rows["verdict"].map(cell_text).astype(object)
    texts = rows[CURVE_COLUMNS].join(numbers).assign(verdict=verdicts.where(verdicts != ""))
    keeps = texts.groupby([*CURVE_COLUMNS, "keep"], sort=False, dropna=False)
    points = keeps[NUMBERS].mean().assign(verdict=keeps["verdict"].first().fillna("")).reset_index()
    curve = points.groupby(CURVE_COLUMNS, sort=False, dropna=False).ngroup()
    order = points.assign(curve=curve).sort_values(["curve", "keep", "gmacs_saved"], ascending=[True, False, True])
    return order.drop(columns="curve")


def _crossing(beyond: NDArray[np.bool_], values: NDArray[np.float64], level: float) -> float:
    """The position at which the values cross a level, given which points lie beyond it; infinite if none does."""
    if not beyond.any():
        return math.inf
    after = int(np.argmax(beyond))
    if after == 0:
        return 0.0
    before = after - 1
    return float(before + (level - values[before]) / (values[after] - values[before]))


def _between(start: float, end: float, path: pd.DataFrame) -> NDArray[np.float64]:
    """Two positions and the points between them: a piecewise linear curve has its extremes there."""
    last = min(end, len(path) - 1)
    return np.array([start, *range(math.floor(start) + 1, math.ceil(last)), last], dtype=float)


def _interpolated(path: pd.DataFrame, name: str, positions: NDArray[np.float64] | list[float]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.interp(positions, np.arange(len(path)), path[name].to_numpy(dtype=float))
    return values
