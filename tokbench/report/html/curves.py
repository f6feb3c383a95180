"""A method's curve over the keeps, and what is read off it at equal accuracy, at equal compute and at equal time.

A curve starts at the plain model, which saves nothing, loses nothing and is as fast as itself, and goes outwards keep
by keep. Between two neighbours every number runs straight; beyond the last keep nothing is said.

A reading is taken where the curve, walked outwards, first passes what is asked for. So a method that loses too much
and comes back at a lower keep is credited only up to where it first lost too much: the way back may be chance, and to
pick the luckiest of many keeps is to choose by the images that are then reported. The savings that count are those of
the way walked, so a keep at which the method's own work costs more than it spares takes none away again.

Intervals: the lower and the upper ends of the points' own intervals make two more curves, read in the same way. At
the plain model both are 0, for there is nothing to be in doubt about. Between two keeps the straight line between
their ends is wide enough, as the error of a weighted mean is no larger than the weighted mean of the errors. What is
read is the set of places where the pointwise band does not rule out what is asked for. Its near end needs no more
than that; its far end takes for granted that the upper ends fall with the keep, for a band that holds at each point
need not hold at all of them at once. An end that the measured keeps do not reach is open.
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

# What is read off a curve, with the ends of its interval. MACs are counted, so they have none.
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

# 100 * 0.007 is more than 0.7. Decimals beyond these are rounding and must not put a point outside a limit.
DECIMALS = 9


@dataclass(frozen=True, eq=False)
class Curve:
    """What was measured of one method in one mode at one batch size.

    Attributes:
        model: Its name in the table.
        method: The label of the series, see `tokbench.report.labels`.
        mode: How the timed models ran: `eager`, `compile` or `cudagraph`.
        batch_size: Images in a timed batch.
        points: The plain model, then a row a keep, falling, with the columns keep, `NUMBERS` and verdict; NaN where
            something was not measured. The seeds of a stochastic method are averaged, their intervals' ends as well:
            that is no narrower than the interval of the average.
    """

    model: str
    method: str
    mode: str
    batch_size: int
    points: pd.DataFrame


@dataclass(frozen=True)
class Reading:
    """A number read off a curve between its limits; None stands for what lies beyond the measured keeps."""

    estimate: float | None
    lo: float | None
    hi: float | None


def curves(table: pd.DataFrame) -> list[Curve]:
    """The curves of a comparison, in the table's order; rows that failed or were skipped are left out.

    Args:
        table: The rows of a comparison, with the columns of the design's row.
    """
    if "mode" not in table:  # written before there were three of them
        table = table.assign(mode=np.where(table["compiled"].eq(True), "compile", "eager"))
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
    """The points of a curve that have all of these numbers, the plain model first; the index counts from 0.

    Positions on a path are fractions of that index: 1.5 is half-way between the first and the second point after the
    plain model.

    Args:
        curve: A curve.
        needed: Names out of `INTERVAL_COLUMNS`.
    """
    columns = [column for name in needed for column in (name, *INTERVAL_COLUMNS[name])]
    return curve.points.dropna(subset=columns, ignore_index=True)


def position_leaving(path: pd.DataFrame, name: str, limit: float) -> float:
    """The position up to which a number stays at or above a limit; infinite where it does to the end.

    Args:
        walked: A path.
        name: The column.
        limit: In the column's unit, not above its value at the plain model.
    """
    values = path[name].to_numpy(dtype=float)
    return _crossing(values < limit, values, limit)


def position_reaching(path: pd.DataFrame, name: str, level: float) -> float:
    """The first position at which a number is at or above a level; infinite where it never is."""
    values = path[name].to_numpy(dtype=float)
    return _crossing(values >= level, values, level)


def position_of_largest_saving(path: pd.DataFrame, end: float) -> float:
    """The position of the largest saving between the plain model and `end`, which may be infinite."""
    positions = _between(0.0, end, path)
    return float(positions[np.argmax(_interpolated(path, "gmacs_saved", positions))])


def interval_at(path: pd.DataFrame, name: str, position: float) -> Interval | None:
    """A number and its interval at a position; None where a neighbouring keep has none."""
    estimate, lo, hi = (float(_interpolated(path, column, [position])[0]) for column in (name, *INTERVAL_COLUMNS[name]))
    return None if math.isnan(estimate + lo + hi) else Interval(estimate, lo, hi)


def saved_at_equal_accuracy(path: pd.DataFrame, lost: float) -> Reading:
    """The largest saving of MACs, in percent, up to which no more than `lost` points of top-1 are lost.

    Args:
        walked: A path with `gmacs_saved` and `delta_top1`.
        lost: Points, at least 0.

    Returns:
        None where the limit holds down to the lowest keep: the saving there, or more.
    """
    ends = [position_leaving(path, name, -lost) for name in ("delta_top1", *INTERVAL_COLUMNS["delta_top1"])]
    places = [None if math.isinf(end) else position_of_largest_saving(path, end) for end in ends]
    return Reading(*(None if p is None else float(_interpolated(path, "gmacs_saved", [p])[0]) for p in places))


def delta_at_equal_compute(path: pd.DataFrame, saved: float) -> Interval | None:
    """The difference in top-1, in points, where `saved` percent of the MACs are first saved; None where they never are.

    Args:
        walked: A path with `gmacs_saved` and `delta_top1`.
        saved: Percent of the plain model's MACs.
    """
    position = position_reaching(path, "gmacs_saved", saved)
    return None if math.isinf(position) else interval_at(path, "delta_top1", position)


def delta_at_equal_time(path: pd.DataFrame, speedup: float) -> Reading | None:
    """The difference in top-1, in points, where a speedup is first reached; None where it never is.

    The place is in doubt as well as the accuracy there. The interval spans the accuracies' intervals from where the
    speedups' upper ends reach it to where their lower ends do, so of two intervals of 95 % it is one of at least 90 %.
    Its lower end is open where the lower ends never reach it.

    Args:
        walked: A path with `delta_top1` and `speedup`.
        speedup: Against the plain model, over 1 is faster.
    """
    place, late, early = (position_reaching(path, name, speedup) for name in ("speedup", *INTERVAL_COLUMNS["speedup"]))
    if math.isinf(place):
        return None
    positions = _between(early, late, path)
    return Reading(
        estimate=float(_interpolated(path, "delta_top1", [place])[0]),
        lo=None if math.isinf(late) else float(_interpolated(path, "delta_lo", positions).min()),
        hi=float(_interpolated(path, "delta_hi", positions).max()),
    )


def _averaged(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each curve and keep, the seeds averaged; each curve's outwards from the plain model."""
    numbers = rows.reindex(columns=["keep", *NUMBERS]).astype(float).round(DECIMALS)
    verdicts = rows["verdict"].map(cell_text).astype(object)
    texts = rows[CURVE_COLUMNS].join(numbers).assign(verdict=verdicts.where(verdicts != ""))
    keeps = texts.groupby([*CURVE_COLUMNS, "keep"], sort=False, dropna=False)
    points = keeps[NUMBERS].mean().assign(verdict=keeps["verdict"].first().fillna("")).reset_index()
    place = points.groupby(CURVE_COLUMNS, sort=False, dropna=False).ngroup()
    order = points.assign(place=place).sort_values(["place", "keep", "gmacs_saved"], ascending=[True, False, True])
    return order.drop(columns="place")


def _crossing(there: NDArray[np.bool_], values: NDArray[np.float64], level: float) -> float:
    """The position at which the values pass a level, given which points lie beyond it."""
    if not there.any():
        return math.inf
    after = int(np.argmax(there))
    if after == 0:
        return 0.0
    before = after - 1
    return float(before + (level - values[before]) / (values[after] - values[before]))


def _between(start: float, end: float, path: pd.DataFrame) -> NDArray[np.float64]:
    """Two positions and the points between them, where straight pieces have their largest and smallest values."""
    last = min(end, len(path) - 1)
    return np.array([start, *range(math.floor(start) + 1, math.ceil(last)), last], dtype=float)


def _interpolated(path: pd.DataFrame, name: str, positions: NDArray[np.float64] | list[float]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.interp(positions, np.arange(len(path)), path[name].to_numpy(dtype=float))
    return values
