"""Headlines and readings, compared with numbers computed by hand and with SciPy's interpolation."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d

from tokbench.report.html.curves import curves
from tokbench.report.html.headlines import READINGS, at_equal, headlines
from tokbench.results.table import read_table

RESULTS = Path(__file__).parents[2] / "results"
TIMES = "\N{MULTIPLICATION SIGN}"
SETTINGS = {
    "model": "deit",
    "params": "",
    "regime": "off-the-shelf",
    "site": "after_attention",
    "schedule": "stages(at=3-6-9)",
    "seed": None,
    "compiled": False,
    "batch_size": 8,
    "mode": "eager",
    "status": "ok",
    "noise_floor": 0.0,
}
FEW = settings(max_examples=25, deadline=None, derandomize=True)


def row(keep, saved, delta, speedup, verdict="FASTER", wide=1.0, **given_):
    """A row with an interval of ±`wide` points for the difference and ±5 % for the speedup."""
    timed = speedup is not None
    return {
        **{**SETTINGS, "method": "tome", "keep": keep, "gmacs_saved": saved, "delta_top1": delta},
        "delta_lo": None if delta is None else delta - wide,
        "delta_hi": None if delta is None else delta + wide,
        **{"speedup": speedup, "verdict": verdict if timed else ""},
        "speedup_lo": speedup * 0.95 if timed else None,
        "speedup_hi": speedup * 1.05 if timed else None,
        **given_,
    }


def plain(**given_):
    return row(1.0, 0.0, 0.0, 0.97, "SAME", **{"method": "none", "schedule": "", "site": "", **given_})


def table(*rows):
    return pd.DataFrame([plain(), *rows])


def one(*rows, **asked):
    """The only row of `at_equal`."""
    (only,) = at_equal(table(*rows), **asked).to_dict("records")
    return only


def spread(read, name):
    return [read[f"{name}{end}"] for end in ("_lo", "", "_hi")]


def same(read, other):
    return read == pytest.approx(other, nan_ok=True)


def sentence(*rows, **asked):
    (only,) = headlines(table(*rows), **asked)
    return only.text.replace(TIMES, "x")


def photographs():
    return pd.read_csv(RESULTS / "photographs" / "stages" / "table.csv").assign(mode="eager", noise_floor=math.nan)


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


# ---- the photographs: computed by hand from the numbers in the table


def test_headlines_of_the_photographs():
    told = {headline.method: headline for headline in headlines(photographs())}
    expected = {
        "tome": "keeps top-1 within 0.5 points with 35 % [4, 39] fewer MACs, 1.63x [1.61, 1.87] faster at batch 32",
        "tofu": "keeps top-1 within 0.5 points with 17 % [5, 30] fewer MACs, "
        "not surely faster (1.28x [1.16, 1.37]) at batch 32",
        "token_pooling": "keeps top-1 within 0.5 points with 13 % [5, 22] fewer MACs, "
        "not surely faster (0.98x [0.92, 1.01]) at batch 32",
        "gtp": "already loses 0.6 points [-0.7, 2.1] with 12 % fewer MACs, same speed (1.04x [0.99, 1.10]) at batch 32",
        "grid_pooling": "already loses 7.4 points [4.7, 10.5] with 19 % fewer MACs, "
        "1.36x [1.27, 1.54] faster at batch 32",
    }
    assert {method: told[method].text.replace(TIMES, "x") for method in expected} == expected
    assert told["tome"].speedup.estimate == pytest.approx(1.628615 + (0.1 / 9.8) * (2.200107 - 1.628615), abs=1e-5)
    assert told["tome"].delta.estimate == pytest.approx(-0.5)
    # One for each method that ran, in the table's order; those that need fine-tuned weights were skipped.
    ran = photographs().query("status == 'ok' and method != 'none'")
    assert list(told) == list(dict.fromkeys(ran["method"]))


def test_readings_of_the_photographs():
    read = at_equal(photographs()).set_index("method")
    # tome saves 35.125 % at -0.4 points and 50.288 % at -10.2: 30 % are saved at a fraction of 0.76293 of the way
    # from 13.505 % to 35.125 %.
    assert read.loc["tome", "saved_at_equal_accuracy"] == pytest.approx(35.27977, abs=1e-4)
    assert read.loc["tome", "delta_at_equal_compute"] == pytest.approx(-0.4)
    assert read.loc["tome", "delta_at_equal_compute_lo"] == pytest.approx(-2.28805, abs=1e-4)
    assert read.loc["tome", "delta_at_equal_compute_hi"] == pytest.approx(1.41748, abs=1e-4)
    # gtp loses too much at its first keep: 0.5 of 0.6 points, on the way from the plain model.
    assert read.loc["gtp", "saved_at_equal_accuracy"] == pytest.approx(12.023579 * 0.5 / 0.6, abs=1e-4)
    # ats is 1.449 times as fast at its first keep, and loses 4 points there.
    assert read.loc["ats", "delta_at_equal_time"] == pytest.approx(-4.0 * 0.3 / 0.4490836, abs=1e-4)


def test_embedded_and_unfinished_results_can_be_read():
    measured = read_table(RESULTS / "reference" / "embedded")
    stored = pd.read_parquet(RESULTS / "reference" / "embedded" / "table.parquet")
    pd.testing.assert_frame_equal(at_equal(measured), at_equal(stored))
    assert len(headlines(measured)) == len(at_equal(measured)) > 0
    waiting = measured.assign(status="failed", reason="not measured yet")
    assert headlines(waiting) == []
    assert len(at_equal(waiting)) == 0


# ---- equal accuracy, compute and time: computed by hand


def test_equal_accuracy_by_hand():
    rows = [row(0.9, 10.0, 0.0, 1.1), row(0.7, 30.0, -2.0, 1.5), row(0.5, 50.0, -6.0, 2.0)]
    read = one(*rows, lost=0.5, saved=40.0, speedup=1.3)
    # -0.5 is a quarter of the way to keep 0.7; the lower ends (-1, -3, -7) reach it half-way to keep 0.9, the upper
    # ends (1, -1, -5) at three quarters of the way to keep 0.7.
    assert spread(read, "saved_at_equal_accuracy") == pytest.approx([5.0, 15.0, 25.0])
    assert spread(read, "speedup_at_equal_accuracy") == pytest.approx([1.2 * 0.95, 1.2, 1.2 * 1.05])
    assert spread(read, "delta_at_equal_compute") == pytest.approx([-5.0, -4.0, -3.0])
    # 1.3 is half-way between keeps 0.9 and 0.7. The lower ends (1.045, 1.425) reach it later, the upper ends
    # (1.155, 1.575) earlier; meanwhile delta's lower end goes from -1 to -3, its upper end from 1 to -1.
    low, high = (1.3 - 1.045) / 0.38, (1.3 - 1.155) / 0.42
    assert spread(read, "delta_at_equal_time") == pytest.approx([-1 - 2 * low, -1.0, 1 - 2 * high])
    assert read["saved_measured"] == 50.0


@pytest.mark.parametrize(("lost", "saved"), [(0.0, 10.0), (0.5, 15.0), (1.0, 20.0), (2.0, 30.0), (6.0, math.nan)])
def test_the_limit_can_be_changed(lost, saved):
    rows = [row(0.9, 10.0, 0.0, 1.1), row(0.7, 30.0, -2.0, 1.5), row(0.5, 50.0, -6.0, 2.0)]
    assert one(*rows, lost=lost)["saved_at_equal_accuracy"] == pytest.approx(saved, nan_ok=True)


def test_readings_beyond_the_lowest_keep_are_open():
    read = one(row(0.9, 10.0, 0.2, 1.1), row(0.7, 30.0, -0.2, 1.25), lost=0.5, saved=31.0, speedup=1.3)
    lo, estimate, hi = spread(read, "saved_at_equal_accuracy")
    # The lower ends are -0.8 and -1.2.
    assert lo == pytest.approx(10 * 0.5 / 0.8)
    assert math.isnan(estimate)
    assert math.isnan(hi)
    assert read["saved_measured"] == 30.0
    assert read["speedup_at_equal_accuracy"] == pytest.approx(1.25)
    for name in ("delta_at_equal_compute", "delta_at_equal_time"):
        assert np.isnan(spread(read, name)).all()
    # Reached by the estimate (1.25) but not by the lower ends (1.1875).
    lo, estimate, hi = spread(one(row(0.7, 30.0, -0.2, 1.25), speedup=1.2), "delta_at_equal_time")
    assert math.isnan(lo)
    assert (estimate, hi) == (pytest.approx(-0.2 * 0.8), pytest.approx(0.8))


def test_a_method_that_recovers_gets_no_credit_beyond_its_first_loss():
    dips = [row(0.9, 10.0, -1.0, 1.1), row(0.7, 30.0, 0.0, 1.5), row(0.5, 50.0, -6.0, 2.0)]
    assert one(*dips, lost=0.5)["saved_at_equal_accuracy"] == pytest.approx(5.0)
    # A point exactly at the limit is within it.
    touches = [row(0.9, 10.0, -0.5, 1.1), row(0.7, 30.0, 0.0, 1.5), row(0.5, 50.0, -6.0, 2.0)]
    assert one(*touches, lost=0.5)["saved_at_equal_accuracy"] == pytest.approx(30 + 20 / 12)


def test_rounding_errors_do_not_move_a_point_outside_the_limit():
    loss = 100 * 0.007  # 0.7000000000000001
    assert loss > 0.7
    assert sentence(row(0.9, 10.0, -loss, 1.1), lost=0.7).startswith("keeps top-1 within 0.7 points with at least 10 %")


def test_a_keep_that_costs_more_than_the_plain_model_does_not_reduce_the_saving():
    # The saving goes from 0 % to -4 % and then to 20 %; the limit is crossed half-way between the two keeps, at 8 %.
    rows = [row(0.9, -4.0, 0.0, 0.9, "SLOWER"), row(0.7, 20.0, -1.0, 1.5)]
    read = one(*rows, lost=0.5, saved=8.0)
    assert read["saved_at_equal_accuracy"] == pytest.approx(8.0)
    assert read["delta_at_equal_compute"] == pytest.approx(-0.5)
    assert one(*rows, lost=0.1)["saved_at_equal_accuracy"] == 0.0


def test_no_speedup_next_to_an_untimed_keep():
    rows = [row(0.9, 10.0, 0.0, 1.1), row(0.7, 30.0, -2.0, None), row(0.5, 50.0, -6.0, 2.0)]
    read = one(*rows, lost=0.5)
    assert np.isnan(spread(read, "speedup_at_equal_accuracy")).all()
    assert sentence(*rows) == "keeps top-1 within 0.5 points with 15 % [5, 25] fewer MACs"
    assert one(*rows, lost=0.0)["speedup_at_equal_accuracy"] == pytest.approx(1.1)  # exactly at a timed keep
    # Equal time needs no MACs, equal compute needs no times.
    assert one(row(0.5, None, -2.0, 1.6), speedup=1.3)["delta_at_equal_time"] == pytest.approx(-1.0)
    assert one(row(0.5, 60.0, -2.0, None), saved=30.0)["delta_at_equal_compute"] == pytest.approx(-1.0)


# ---- equal accuracy, compute and time: against SciPy, and properties


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


def test_the_order_of_the_rows_does_not_matter():
    rows = [row(0.9, 10.0, 0.0, 1.1), row(0.7, 30.0, -2.0, 1.5), row(0.5, 50.0, -6.0, 2.0)]
    assert same(one(*rows), one(*rows[::-1]))


# ---- which rows form a curve


def test_seeds_are_averaged_first():
    seeds = [row(0.7, 30.0, delta, 1.5 if seed == 1 else None, seed=seed) for seed, delta in enumerate((0, -1, -5))]
    assert same(one(*seeds, lost=1.0), one(row(0.7, 30.0, -2.0, 1.5), lost=1.0))
    assert sentence(*seeds).endswith(" faster at batch 8")  # though the first seed has no time and no verdict
    lost = row(0.7, 30.0, -50.0, 9.0, seed=3, status="failed")
    assert same(one(*seeds, lost), one(*seeds))


def test_failed_and_skipped_rows_are_left_out():
    ran = [row(0.9, 10.0, 0.0, 1.1), row(0.7, 30.0, -2.0, 1.5)]
    out = [row(0.5, 50.0, -6.0, 2.0, status="failed"), row(0.3, 60.0, -9.0, 3.0, status="skipped")]
    assert same(one(*ran, *out), one(*ran))


def test_other_settings_are_separate_curves():
    rows = [
        row(0.5, 50.0, -1.0, 2.0, model="vit"),
        row(0.7, 30.0, -1.0, 1.5),
        row(0.7, 30.0, -1.0, 1.5, batch_size=256),
        row(0.7, 30.0, -1.0, 1.5, mode="compile"),
        row(0.7, 30.0, -1.0, 1.5, schedule="budget(0.7)"),
        row(0.7, 30.0, -1.0, 1.5, method="evit", params="fuse=true"),
        row(0.7, 30.0, -1.0, 1.5, method="evit", params="fuse=false"),
    ]
    read = at_equal(table(*rows))
    # Grouped by model, within a model in the table's order.
    assert set(zip(read["model"], read["method"], read["mode"], read["batch_size"], strict=True)) == {
        ("vit", "tome", "eager", 8),
        ("deit", "tome stages(at=3-6-9)", "eager", 8),
        ("deit", "tome stages(at=3-6-9)", "eager", 256),
        ("deit", "tome stages(at=3-6-9)", "compile", 8),
        ("deit", "tome budget(0.7)", "eager", 8),
        ("deit", "evit(fuse=true)", "eager", 8),
        ("deit", "evit(fuse=false)", "eager", 8),
    }
    assert len(read) == len(rows)


def test_a_point_may_have_no_keep():
    counts = row(None, 30.0, -2.0, 1.5, schedule="explicit(counts=9-6-3)")
    assert one(counts, lost=1.0)["saved_at_equal_accuracy"] == pytest.approx(15.0)


def test_the_plain_model_alone_has_no_curves_and_headlines():
    assert curves(table()) == []
    assert headlines(table()) == []
    assert list(at_equal(table()).columns) == list(at_equal(table(row(0.7, 30.0, -2.0, 1.5))).columns)
    assert headlines(table(row(0.7, None, None, None))) == []
    assert len(at_equal(table(row(0.7, 30.0, None, 1.5)))) == 0


# ---- sentences

WITHIN = (row(0.9, 10.0, 0.0, 1.1), row(0.7, 30.0, -2.0, 1.5), row(0.5, 50.0, -6.0, 2.0))
KEEPS = "keeps top-1 within 0.5 points with "


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (WITHIN, KEEPS + "15 % [5, 25] fewer MACs, 1.20x [1.14, 1.26] faster at batch 8"),
        # Within the limit down to the lowest keep, with certainty and without.
        (
            [row(0.9, 10.0, 0.2, 1.1, wide=0.1), row(0.5, 60.0, -0.2, 2.0, wide=0.1)],
            KEEPS + "at least 60 % fewer MACs, 2.00x [1.90, 2.10] faster at batch 8",
        ),
        (
            [row(0.9, 10.0, 0.2, 1.1), row(0.5, 60.0, -0.2, 2.0)],
            KEEPS + "at least 60 % [6, 60 or more] fewer MACs, 2.00x [1.90, 2.10] faster at batch 8",
        ),
        (
            [row(0.9, 10.0, 0.0, 1.1), row(0.5, 60.0, -1.0, 2.0)],
            KEEPS + "35 % [5, 60 or more] fewer MACs, 1.55x [1.47, 1.63] faster at batch 8",
        ),
        (
            [row(0.5, 60.0, 0.0, 2.0, wide=0.2)],
            KEEPS + "at least 60 % fewer MACs, 2.00x [1.90, 2.10] faster at batch 8",
        ),
        # Outside the limit already at the highest keep; nothing was measured between it and the plain model.
        (
            [row(0.9, 9.0, -3.1, 1.2), row(0.5, 60.0, -9.0, 2.0)],
            "already loses 3.1 points [2.1, 4.1] with 9 % fewer MACs, 1.20x [1.14, 1.26] faster at batch 8",
        ),
        (
            [row(0.9, -9.0, -3.1, 0.8, "SLOWER")],
            "already loses 3.1 points [2.1, 4.1] with 9 % more MACs, 1.25x [1.19, 1.32] slower at batch 8",
        ),
        ([row(0.9, 0.3, -3.1, None)], "already loses 3.1 points [2.1, 4.1] with the same MACs"),
        ([row(0.9, -3.0, 0.1, None)], "keeps top-1 within 0.5 points, but with 3 % more MACs"),
        (
            [row(0.9, -3.0, 0.0, None), row(0.7, 5.0, -8.0, None)],
            "already loses 8.0 points [7.0, 9.0] with 5 % fewer MACs",
        ),
        # Without accuracies, times or MACs: the lowest keep.
        (
            [row(0.7, 30.0, None, 1.2), row(0.5, 52.0, None, 1.4)],
            "52 % fewer MACs, 1.40x [1.33, 1.47] faster at keep 0.5, batch 8",
        ),
        ([row(0.5, 52.0, None, None)], "52 % fewer MACs at keep 0.5"),
        ([row(0.5, None, None, 1.4)], "1.40x [1.33, 1.47] faster at keep 0.5, batch 8"),
        ([row(None, None, None, 1.4)], "1.40x [1.33, 1.47] faster at batch 8"),
        ([row(0.5, None, -3.1, None)], "loses 3.1 points [2.1, 4.1] at keep 0.5"),
        ([row(0.5, None, 0.4, None)], "gains 0.4 points [-0.6, 1.4] at keep 0.5"),
        ([row(0.9, 10.0, 0.0, None), row(0.7, 30.0, -2.0, None)], KEEPS + "15 % [5, 25] fewer MACs"),
    ],
)
def test_the_sentence_of_each_case(rows, text):
    assert sentence(*rows) == text


@pytest.mark.parametrize(
    ("lost", "start"),
    [
        (0.0, "loses no top-1 with 10 % [0, 20] fewer MACs"),
        (1.0, "keeps top-1 within 1 point with 20 % [10, 30] fewer MACs"),
        (2.0, "keeps top-1 within 2 points with 30 % [20, 35] fewer MACs"),
    ],
)
def test_a_sentence_names_its_limit(lost, start):
    assert sentence(*WITHIN, lost=lost).startswith(start)


@pytest.mark.parametrize(
    ("verdicts", "speedups", "floor", "said"),
    [
        (("FASTER", "FASTER"), (1.2, 1.68), 0.0, "1.32x [1.25, 1.39] faster"),
        # The nearest keep decides, unless the interpolated speedup is within the margin.
        (("FASTER", "AMBIGUOUS"), (1.2, 1.68), 0.0, "1.32x [1.25, 1.39] faster"),
        (("AMBIGUOUS", "FASTER"), (1.2, 1.68), 0.0, "not surely faster (1.32x [1.25, 1.39])"),
        (("FASTER", "FASTER"), (1.2, 1.68), 30.0, "not surely faster (1.32x [1.25, 1.39])"),
        (("AMBIGUOUS", "AMBIGUOUS"), (1.2, 1.68), 0.0, "not surely faster (1.32x [1.25, 1.39])"),
        (("SAME", "AMBIGUOUS"), (1.2, 1.68), 0.0, "not surely faster (1.32x [1.25, 1.39])"),
        (("SAME", "SAME"), (1.0, 1.0), 0.0, "same speed (1.00x [0.95, 1.05])"),
        (("SLOWER", "FASTER"), (0.8, 1.6), 0.0, "not surely faster (1.00x [0.95, 1.05])"),
        (("FASTER", "SLOWER"), (1.1, 0.7), 0.0, "not surely faster (1.00x [0.95, 1.05])"),
        (("SLOWER", "SLOWER"), (0.8, 0.8), 0.0, "1.25x [1.19, 1.32] slower"),
        (("SLOWER", "AMBIGUOUS"), (0.8, 0.84), 0.0, "1.23x [1.18, 1.30] slower"),
    ],
)
def test_the_wording_of_times_follows_the_verdicts(verdicts, speedups, floor, said):
    near, far = (
        row(keep, saved, delta, speedup, verdict, noise_floor=floor)
        for keep, saved, delta, speedup, verdict in zip(
            (0.9, 0.7), (10.0, 30.0), (0.0, -2.0), speedups, verdicts, strict=True
        )
    )
    assert sentence(near, far).endswith(f" fewer MACs, {said} at batch 8")


@pytest.mark.parametrize(("verdicts", "faster"), [(("AMBIGUOUS", "FASTER"), True), (("FASTER", "AMBIGUOUS"), False)])
def test_the_nearest_keep_decides_about_the_verdict(verdicts, faster):
    near, far = row(0.9, 10.0, 0.0, 1.2, verdicts[0]), row(0.7, 30.0, -2.0, 1.6, verdicts[1])
    assert ("not surely faster" not in sentence(near, far, lost=1.5)) == faster


def test_times_are_for_the_largest_batch_and_eager_mode():
    def told(*settings_):
        (headline,) = headlines(table(*(row(0.7, 30.0, 0.0, **{"speedup": 1.5} | own) for own in settings_)))
        return headline.batch_size, headline.mode, headline.text.partition(" at ")[2].partition(" at ")[2]

    small, large = {"batch_size": 1}, {"batch_size": 256}
    assert told(small, large) == (256, "eager", "batch 256")
    assert told(small, large | {"speedup": None}) == (1, "eager", "batch 1")
    assert told({"mode": "cudagraph"} | large, large) == (256, "eager", "batch 256")
    assert told({"mode": "cudagraph"} | large, small) == (256, "cudagraph", "batch 256, cudagraph")
    assert told({"mode": "compile"} | large, {"mode": "cudagraph"} | large)[1] == "compile"
    (untimed,) = headlines(table(row(0.7, 30.0, 0.0, None, batch_size=256)))
    assert untimed.batch_size is None
    assert untimed.speedup is None


def test_headlines_include_the_numbers():
    (told,) = headlines(table(*WITHIN))
    assert (told.model, told.method) == ("deit", "tome")
    read = one(*WITHIN)
    for numbers, name in ((told.gmacs_saved, "saved_at_equal_accuracy"), (told.speedup, "speedup_at_equal_accuracy")):
        assert [numbers.lo, numbers.estimate, numbers.hi] == pytest.approx(spread(read, name))
    assert told.delta.estimate == pytest.approx(-0.5)
    (open_,) = headlines(table(row(0.5, 60.0, 0.0, 2.0)))
    assert (open_.gmacs_saved.estimate, open_.gmacs_saved.hi) == (None, None)
