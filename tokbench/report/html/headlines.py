"""A sentence about each method, and the table of its readings at equal accuracy, compute and time.

`curves.py` describes how the numbers are read off the measured points, and what their intervals mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tokbench.names import EAGER, TIMES
from tokbench.report.digits import number
from tokbench.report.html.curves import (
    INTERVAL_COLUMNS,
    Curve,
    Reading,
    curve_path,
    curves,
    delta_at_equal_compute,
    delta_at_equal_time,
    interval_at,
    position_leaving,
    position_of_largest_saving,
    saved_at_equal_accuracy,
)
from tokbench.stats.proportions import Interval
from tokbench.stats.times import MIN_MARGIN, Verdict

# Points of top-1: papers commonly call half a point no loss.
EQUAL_ACCURACY_LOSS = 0.5
EQUAL_COMPUTE_SAVING = 30.0
EQUAL_TIME_SPEEDUP = 1.3

READINGS = ("saved_at_equal_accuracy", "speedup_at_equal_accuracy", "delta_at_equal_compute", "delta_at_equal_time")
CURVE = ("model", "method", "mode", "batch_size")


@dataclass(frozen=True)
class Headline:
    """The result of one method as a sentence and as numbers.

    Attributes:
        model: Its name in the table.
        method: The name of the series.
        batch_size: Of the timed batches; None if nothing was timed.
        mode: How the timed models ran.
        text: The sentence, without the method's name.
        gmacs_saved: Percent of the plain model's MACs; None if they were not counted. An estimate of None means "at
            least the saving of the lowest keep".
        delta: Points of top-1 against the plain model at the position that the sentence describes; None if accuracy
            was not measured.
        speedup: At that position; None if a neighbouring keep was not timed.
    """

    model: str
    method: str
    batch_size: int | None
    mode: str
    text: str
    gmacs_saved: Reading | None
    delta: Interval | None
    speedup: Interval | None


def headlines(table: pd.DataFrame, lost: float = EQUAL_ACCURACY_LOSS) -> list[Headline]:
    """One headline for each model and method that has a result, in the table's order.

    It describes the position up to which at most `lost` points of top-1 are lost. If that is before the highest keep,
    it describes the highest keep instead, as nothing was measured between the plain model and that keep. If accuracy
    or MACs were not measured, it describes the lowest keep.

    Times are for the largest timed batch size, and for eager mode if there are several modes. A method is called
    faster (or slower) if the nearest keep has that verdict and the interval at the position lies outside the margin of
    `tokbench.stats.times.compare_times`. The speedup's interval is the one at the position, which itself is taken as
    exact.

    Args:
        table: The rows of a comparison, with the columns of the design's row.
        lost: Points of top-1, at least 0.
    """
    by_method: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves(table):
        by_method.setdefault((curve.model, curve.method), []).append(curve)
    chosen = [max(candidates, key=_preference) for candidates in by_method.values()]
    return [headline for curve in chosen if (headline := _headline(curve, lost))]


def at_equal(
    table: pd.DataFrame,
    lost: float = EQUAL_ACCURACY_LOSS,
    saved: float = EQUAL_COMPUTE_SAVING,
    speedup: float = EQUAL_TIME_SPEEDUP,
) -> pd.DataFrame:
    """The compute saved at equal accuracy, and the accuracy at equal compute and at equal time.

    Unlike headlines, these are also read between the plain model and a method's highest keep.

    Args:
        table: The rows of a comparison, with the columns of the design's row.
        lost: The points of top-1 that equal accuracy may lose, at least 0.
        saved: The percentage of the MACs that is saved at equal compute.
        speedup: The speedup at equal time.

    Returns:
        A row for each model, method, mode and batch size with accuracies and MACs or times: `CURVE`, `lost`, and each
        of `READINGS` with its `_lo` and `_hi`, NaN if it lies beyond the measured keeps. If
        `saved_at_equal_accuracy` or one of its ends is NaN, it is at least `saved_measured`, the largest saving of the
        curve, and `speedup_at_equal_accuracy` is the speedup there.
    """
    rows = [_at_equal_row(curve, lost, saved, speedup) for curve in curves(table)]
    columns = ["saved_measured", *(f"{name}{end}" for name in READINGS for end in ("", "_lo", "_hi"))]
    frame = pd.DataFrame(rows, columns=[*CURVE, "lost", *columns]).astype(dict.fromkeys(columns, float))
    return frame.dropna(how="all", subset=columns, ignore_index=True)


def _curve_columns(curve: Curve) -> dict[str, Any]:
    return {name: getattr(curve, name) for name in CURVE}


def _at_equal_row(curve: Curve, lost: float, saved: float, speedup: float) -> dict[str, Any]:
    """One row of `at_equal`."""
    path = curve_path(curve, "gmacs_saved", "delta_top1")
    read: dict[str, Reading | Interval | None] = {
        "delta_at_equal_compute": delta_at_equal_compute(path, saved),
        "delta_at_equal_time": delta_at_equal_time(curve_path(curve, "delta_top1", "speedup"), speedup),
    }
    row = {**_curve_columns(curve), "lost": lost}
    if len(path) > 1:
        position = position_of_largest_saving(path, position_leaving(path, "delta_top1", -lost))
        read["saved_at_equal_accuracy"] = saved_at_equal_accuracy(path, lost)
        read["speedup_at_equal_accuracy"] = interval_at(path, "speedup", position)
        row["saved_measured"] = path["gmacs_saved"].max()
    for name, reading in read.items():
        if reading:
            row |= {name: reading.estimate, f"{name}_lo": reading.lo, f"{name}_hi": reading.hi}
    return row


def _preference(curve: Curve) -> tuple[bool, int, bool]:
    return _timed(curve), curve.batch_size, curve.mode == EAGER


def _timed(curve: Curve) -> bool:
    return bool(curve.points["speedup"].iloc[1:].notna().any())


def _headline(curve: Curve, lost: float) -> Headline | None:
    """The headline of the method's curve, or of its lowest keep if there is no curve."""
    path = curve_path(curve, "gmacs_saved", "delta_top1")
    if len(path) == 1:
        return _lowest_keep_headline(curve)
    end = position_leaving(path, "delta_top1", -lost)
    position = position_of_largest_saving(path, end)
    if position >= 1:
        saved = saved_at_equal_accuracy(path, lost)
        text = f"{_within_text(lost)} with {_saving_text(saved, path['gmacs_saved'].max())} fewer MACs"
    else:
        # Nothing is saved within the limit: describe the first keep outside it, or the lowest if all are within.
        position = len(path) - 1 if math.isinf(end) else math.floor(end) + 1
        here = path.iloc[position]
        saved = _exact_reading(here["gmacs_saved"])
        change = f"{_within_text(lost)}, but" if math.isinf(end) else f"already {_change_text(_interval(here))}"
        text = f"{change} with {_macs_text(here['gmacs_saved'])}"
    speedup = interval_at(path, "speedup", position)
    if speedup:
        text += f", {_speed_text(path, position, speedup)} at {_batch_text(curve)}"
    return _make_headline(curve, text, saved, interval_at(path, "delta_top1", position), speedup)


def _lowest_keep_headline(curve: Curve) -> Headline | None:
    """The headline of the lowest keep with any measurement; None if there is none."""
    known = curve.points.dropna(how="all", subset=list(INTERVAL_COLUMNS), ignore_index=True)
    position = len(known) - 1
    if position == 0:
        return None
    saved, delta, speedup = (interval_at(known, name, position) for name in ("gmacs_saved", "delta_top1", "speedup"))
    results = [
        _change_text(delta) if delta else "",
        _macs_text(saved.estimate) if saved else "",
        _speed_text(known, position, speedup) if speedup else "",
    ]
    keep = known["keep"].iloc[position]
    where = ["" if math.isnan(keep) else f"keep {keep:g}", _batch_text(curve) if speedup else ""]
    text = " at ".join(filter(None, (", ".join(filter(None, parts)) for parts in (results, where))))
    return _make_headline(curve, text, _exact_reading(saved.estimate) if saved else None, delta, speedup)


def _make_headline(
    curve: Curve, text: str, saved: Reading | None, delta: Interval | None, speedup: Interval | None
) -> Headline:
    batch_size = curve.batch_size if _timed(curve) else None
    return Headline(curve.model, curve.method, batch_size, curve.mode, text, saved, delta, speedup)


def _exact_reading(saved: float) -> Reading:
    return Reading(saved, saved, saved)


def _interval(point: pd.Series) -> Interval:
    return Interval(point["delta_top1"], point["delta_lo"], point["delta_hi"])


def _within_text(lost: float) -> str:
    if lost == 0:
        return "loses no top-1"
    return f"keeps top-1 within {lost:g} point{'' if lost == 1 else 's'}"


def _saving_text(saved: Reading, most: float) -> str:
    """A saving in percent; an open end is at least the largest measured saving."""
    least = f"{number(most, 0)} or more"
    lo, hi = (least if end is None else number(end, 0) for end in (saved.lo, saved.hi))
    estimate = f"at least {number(most, 0)} %" if saved.estimate is None else f"{number(saved.estimate, 0)} %"
    return estimate if saved.lo is None else f"{estimate} [{lo}, {hi}]"


def _macs_text(saved: float) -> str:
    percent = number(abs(saved), 0)
    return "the same MACs" if percent == "0" else f"{percent} % {'fewer' if saved > 0 else 'more'} MACs"


def _change_text(delta: Interval) -> str:
    """A difference in top-1 in words; losses are positive numbers."""
    if delta.estimate > 0:
        return f"gains {_interval_text(delta, 1, ' points')}"
    return f"loses {_interval_text(Interval(-delta.estimate, -delta.hi, -delta.lo), 1, ' points')}"


def _speed_text(path: pd.DataFrame, position: float, speedup: Interval) -> str:
    """The speedup at a position in words, according to the verdicts of the neighbouring keeps."""
    ends = path.iloc[[math.floor(position), math.ceil(position)]]
    nearest = path["verdict"].iloc[math.floor(position + 0.5)]
    margin = 1 + max(MIN_MARGIN, ends["noise_floor"].fillna(0).max() / 100)
    if nearest == Verdict.FASTER and speedup.lo > margin:
        return f"{_interval_text(speedup, 2, TIMES)} faster"
    if nearest == Verdict.SLOWER and speedup.hi < 1 / margin:
        return f"{_interval_text(Interval(1 / speedup.estimate, 1 / speedup.hi, 1 / speedup.lo), 2, TIMES)} slower"
    verdict = "same speed" if ends["verdict"].eq(Verdict.SAME).all() else "not surely faster"
    return f"{verdict} ({_interval_text(speedup, 2, TIMES)})"


def _batch_text(curve: Curve) -> str:
    return f"batch {curve.batch_size}" + ("" if curve.mode == EAGER else f", {curve.mode}")


def _interval_text(value: Interval, digits: int, unit: str) -> str:
    return f"{number(value.estimate, digits)}{unit} [{number(value.lo, digits)}, {number(value.hi, digits)}]"
