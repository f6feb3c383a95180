"""Readings of random curves, compared with SciPy's interpolation and with a search on a fine grid."""

import math

import numpy as np
import pytest
from curve_rows import one, row, same, spread
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d

from tokbench.report.html.headlines import READINGS

FEW = settings(max_examples=25, deadline=None, derandomize=True)


# Multiples of 1/8 and of 1/64 make halves and sums exact, so that a limit can be reached exactly.
eighths = st.integers(-40, 16).map(lambda n: n / 8)
points = st.lists(
    st.tuples(st.integers(-8, 160), eighths, st.integers(0, 16), st.integers(40, 160), st.integers(0, 16)),
    min_size=1,
    max_size=5,
)
"""For each keep: the saving in units of 1/2 percent, delta, its half width, the speedup and its half width in 1/64."""


def made(drawn, keeps=None, factor=1.0, points_factor=1.0):
    rows = []
    for place, (saved, delta, half, speedup, doubt) in enumerate(drawn):
        keep = keeps[place] if keeps else 1 - (place + 1) / 8
        ends = {"delta_lo": (delta - half / 8) * points_factor, "delta_hi": (delta + half / 8) * points_factor}
        ends |= {"speedup_lo": (speedup - doubt) / 64, "speedup_hi": (speedup + doubt) / 64}
        rows.append(row(keep, saved / 2 * factor, delta * points_factor, speedup / 64, **ends))
    return rows


falling = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 16), st.integers(1, 32)), min_size=1, max_size=5)
"""For each keep the increase over the next higher one: the saving, the loss in 1/8 points, the speedup in 1/64."""


@FEW
@given(falling, st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)))
def test_readings_of_falling_curves_are_inverse_interpolations(steps, shares):
    saved, lost, gained = np.cumsum([(0, 0, 0), *steps], axis=0).T.astype(float)
    loss, speedup = lost / 8, 1 + gained / 64
    rows = [row(1 - k / 8, saved[k], -loss[k], speedup[k]) for k in range(1, len(saved))]
    # Just inside the measured range, where the answer is not open.
    asked = {"lost": loss[-1], "saved": saved[-1], "speedup": speedup[-1] - 1}
    asked = {name: most * share * 0.999 for (name, most), share in zip(asked.items(), shares, strict=True)}
    asked["speedup"] += 1
    read = one(*rows, **asked)
    assert read["saved_at_equal_accuracy"] == pytest.approx(float(interp1d(loss, saved)(asked["lost"])), abs=1e-6)
    assert read["speedup_at_equal_accuracy"] == pytest.approx(float(interp1d(loss, speedup)(asked["lost"])), abs=1e-6)
    assert read["delta_at_equal_compute"] == pytest.approx(float(-interp1d(saved, loss)(asked["saved"])), abs=1e-6)
    assert read["delta_at_equal_time"] == pytest.approx(float(-interp1d(speedup, loss)(asked["speedup"])), abs=1e-6)


def walk(drawn, lost, name):
    """The largest saving, searched on a fine grid, and whether the limit holds down to the lowest keep."""
    steps = 1024
    values = {
        "delta_top1": [0.0, *(delta for _, delta, *_ in drawn)],
        "delta_lo": [0.0, *(delta - half / 8 for _, delta, half, *_ in drawn)],
        "delta_hi": [0.0, *(delta + half / 8 for _, delta, half, *_ in drawn)],
    }[name]
    place = np.arange(len(drawn) * steps + 1) / steps
    saved = interp1d(np.arange(len(values)), [0.0, *(saved / 2 for saved, *_ in drawn)])(place)
    best = 0.0
    for here, value in zip(saved, interp1d(np.arange(len(values)), values)(place), strict=True):
        if -value > lost:
            return best, False
        best = max(best, here)
    return best, True


@FEW
@given(points, st.integers(0, 16).map(lambda n: n / 8))
def test_the_saving_follows_the_curve_from_the_plain_model(drawn, lost):
    read = one(*made(drawn), lost=lost)
    names = {"": "delta_top1", "_lo": "delta_lo", "_hi": "delta_hi"}
    for end, name in names.items():
        best, held = walk(drawn, lost, name)
        value = read[f"saved_at_equal_accuracy{end}"]
        assert math.isnan(value) == held
        assert (read["saved_measured"] if held else value) == pytest.approx(best, abs=84 / 1024)


@FEW
@given(points, st.integers(0, 16).map(lambda n: n / 8), st.integers(1, 160), st.integers(65, 160))
def test_intervals_contain_their_estimates(drawn, lost, saved, speedup):
    read = one(*made(drawn), lost=lost, saved=saved / 2, speedup=speedup / 64)
    for name in READINGS:
        lo, estimate, hi = spread(read, name)
        # Comparisons with NaN, which marks open ends, are false.
        assert not lo > estimate + 1e-9
        assert not estimate > hi + 1e-9
    lo, estimate, hi = (math.isnan(value) for value in spread(read, "saved_at_equal_accuracy"))
    assert lo <= estimate <= hi


@FEW
@given(points, st.data(), st.integers(0, 16).map(lambda n: n / 8))
def test_an_additional_point_on_the_line_changes_nothing(drawn, data, lost):
    after = data.draw(st.integers(0, len(drawn) - 1))
    start = [(0, 0.0, 0, 64, 0), *drawn][after]
    # Half-way between two neighbours, in all of their numbers.
    half = tuple((a + b) / 2 for a, b in zip(start, drawn[after], strict=True))
    keeps = [1 - (place + 1) / 8 for place in range(len(drawn))]
    between = [*keeps[:after], keeps[after] + 1 / 16, *keeps[after:]]
    asked = {"lost": lost, "saved": 20.0, "speedup": 1.25}
    before = one(*made(drawn), **asked)
    with_it = one(*made([*drawn[:after], half, *drawn[after:]], between), **asked)
    assert same(with_it, before)


@FEW
@given(points, st.integers(0, 16).map(lambda n: n / 8), st.sampled_from([0.25, 0.5, 2.0]))
def test_readings_scale_with_their_units(drawn, lost, factor):
    before = one(*made(drawn), lost=lost, saved=20.0)
    savings = one(*made(drawn, factor=factor), lost=lost, saved=20.0 * factor)
    differences = one(*made(drawn, points_factor=factor), lost=lost * factor, saved=20.0)
    for end in ("", "_lo", "_hi"):
        for name in READINGS:
            value = before[f"{name}{end}"]
            scaled = value * factor
            expected = (scaled, value) if name.startswith("saved") else (value, scaled)
            if name.startswith("speedup"):
                expected = (value, value)
            got = (savings[f"{name}{end}"], differences[f"{name}{end}"])
            assert got == pytest.approx(expected, nan_ok=True), name
