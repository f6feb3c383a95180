"""The statistics of times against brute force, exact distributions and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tokbench.stats.proportions import Interval
from tokbench.stats.times import (
    Comparison,
    Verdict,
    compare_speedups,
    compare_times,
    floor_of,
    median_interval,
    percentile,
)


def near(interval, lo, hi, tolerance):
    return interval.lo == pytest.approx(lo, abs=tolerance) and interval.hi == pytest.approx(hi, abs=tolerance)


# Medians and percentiles


@pytest.mark.parametrize("n", [6, 10, 11, 30, 101])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_median_interval_equals_the_quantile_tests(n, level):
    samples = np.random.default_rng(n).lognormal(size=n)
    limits = stats.quantile_test(samples, p=0.5).confidence_interval(level)
    assert median_interval(samples, level) == Interval(float(np.median(samples)), limits.low, limits.high)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_interval_of_few_samples_is_their_range(n):
    assert median_interval(range(n)) == Interval((n - 1) / 2, 0, n - 1)


@pytest.mark.parametrize("n", [10, 25])
def test_median_interval_has_the_stated_coverage(n):
    samples = np.random.default_rng(n).lognormal(size=(600, n))  # of median 1
    intervals = [median_interval(row) for row in samples]
    assert np.mean([i.lo <= 1 <= i.hi for i in intervals]) > 0.935


def test_the_median_needs_a_sample():
    with pytest.raises(ValueError, match="median"):
        median_interval([])


@pytest.mark.parametrize(("q", "enough"), [(0.9, 64), (0.1, 64), (0.99, 662)])
def test_percentiles_need_enough_samples(q, enough):
    assert percentile(range(enough - 1), q) is None
    assert percentile(range(enough), q) == pytest.approx((enough - 1) * q)


@pytest.mark.parametrize("q", [0, 1, 90])
def test_a_quantile_must_be_a_fraction(q):
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile(range(1000), q)


# Times

seconds = st.floats(1e-5, 1e2)
# Up to 13 pairs with ties SciPy permutes exactly, which takes seconds.
timings = st.lists(st.tuples(seconds, seconds), min_size=14, max_size=40)


def noisy(speedup, noise, n=30, seed=0):
    rng = np.random.default_rng(seed)
    drift = np.linspace(1, 1.5, n)  # a machine that gets slower while it measures
    return drift * rng.lognormal(0, noise, n), drift * rng.lognormal(0, noise, n) / speedup


@pytest.mark.parametrize(
    ("speedup", "noise", "verdict"),
    [
        (1.5, 0.02, Verdict.FASTER),
        (1.03, 0.005, Verdict.FASTER),
        (1 / 1.5, 0.02, Verdict.SLOWER),
        (1.0, 0.001, Verdict.SAME),
        (1.0, 0.2, Verdict.AMBIGUOUS),
        (1.005, 0.002, Verdict.AMBIGUOUS),  # certainly faster, but not certainly by half a percent
    ],
)
def test_verdicts(speedup, noise, verdict):
    assert compare_times(*noisy(speedup, noise)).verdict is verdict


def test_a_comparison_needs_ten_rounds():
    base, other = noisy(2, 0.01, n=10)
    assert compare_times(base, other).verdict is Verdict.FASTER
    with pytest.raises(ValueError, match="at least 10"):
        compare_times(base[:9], other[:9])


def test_the_noise_floor_widens_the_margin():
    base, other = noisy(1.03, 0.005)
    assert compare_times(base, other, floor=0.01).verdict is Verdict.FASTER
    assert compare_times(base, other, floor=0.10).verdict is Verdict.SAME


@given(timings)
def test_swapping_the_programs_reverses_the_verdict(times):
    base, other = np.array(times).T
    there, back = compare_times(base, other), compare_times(other, base)
    mirror = {Verdict.FASTER: Verdict.SLOWER, Verdict.SLOWER: Verdict.FASTER}
    assert back.verdict is mirror.get(there.verdict, there.verdict)
    assert back.p == there.p
    assert back.speedup.lo == pytest.approx(1 / there.speedup.hi)
    assert back.speedup.hi == pytest.approx(1 / there.speedup.lo)
    assert back.speedup.estimate == pytest.approx(1 / there.speedup.estimate)


@given(timings, st.floats(1e-3, 1e3))
def test_the_unit_of_time_does_not_matter(times, scale):
    base, other = np.array(times).T
    one, two = compare_times(base, other), compare_times(base * scale, other * scale)
    assert two.speedup.estimate == pytest.approx(one.speedup.estimate)
    assert near(two.speedup, one.speedup.lo, one.speedup.hi, 1e-9 * one.speedup.hi)
    assert two.p == pytest.approx(one.p)
    assert two.verdict is one.verdict


@given(st.lists(seconds, min_size=10, max_size=40))
def test_a_program_is_the_same_as_itself(times):
    assert compare_times(times, times) == Comparison(Interval(1, 1, 1), 1.0, Verdict.SAME)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_times_must_be_positive_and_finite(bad):
    with pytest.raises(ValueError, match="positive"):
        compare_times([1.0] * 10, [1.0] * 9 + [bad])


def test_few_false_alarms():
    verdicts = [compare_times(*noisy(1.0, 0.02, seed=seed)).verdict for seed in range(300)]
    assert sum(v in (Verdict.FASTER, Verdict.SLOWER) for v in verdicts) <= 1


def test_the_floor_is_the_largest_certain_difference():
    def aa(lo, hi):
        return Comparison(Interval(math.sqrt(lo * hi), lo, hi), 0.5, Verdict.AMBIGUOUS)

    assert floor_of([]) == 0
    assert floor_of([aa(0.8, 1.2), aa(0.99, 1.3)]) == 0  # only noise
    assert floor_of([aa(0.8, 1.2), aa(1.01, 1.3), aa(1.02, 1.03)]) == pytest.approx(0.02)
    assert floor_of([aa(0.8, 0.9), aa(1.02, 1.03)]) == pytest.approx(1 / 0.9 - 1)


def test_a_difference_within_the_noise_floor_is_not_significant():
    blocks = [compare_times(*noisy(speedup, 0.001, seed=seed)) for seed, speedup in enumerate((1.02, 0.99, 1.0))]
    floor = floor_of(blocks)
    assert floor == pytest.approx(0.02, abs=0.002)
    assert compare_times(*noisy(1.015, 0.001, seed=9)).verdict is Verdict.FASTER
    assert compare_times(*noisy(1.015, 0.001, seed=9), floor=floor).verdict is Verdict.SAME


def test_noisy_blocks_do_not_hide_a_difference():
    blocks = [compare_times(*noisy(1, 0.1, seed=seed)) for seed in range(5)]
    assert floor_of(blocks) < 0.02
    assert compare_times(*noisy(0.9, 0.05, n=200, seed=9), floor=floor_of(blocks)).verdict is Verdict.SLOWER


# Speedups of two sessions


def session(speedup, noise, n=30, seed=0):
    return np.random.default_rng(seed).normal(math.log(speedup), noise, n)


@pytest.mark.parametrize(
    ("old", "new", "noise", "verdict"),
    [
        (1.5, 1.6, 0.02, Verdict.FASTER),
        (1.6, 1.5, 0.02, Verdict.SLOWER),
        (1.5, 1.5, 0.002, Verdict.SAME),
        (1.5, 1.5, 0.2, Verdict.AMBIGUOUS),
        (1.5, 1.508, 0.002, Verdict.AMBIGUOUS),  # certainly faster, but not certainly by half a percent
    ],
)
def test_verdicts_of_sessions(old, new, noise, verdict):
    found = compare_speedups(session(old, noise), session(new, noise, n=47, seed=1))
    assert found.verdict is verdict
    assert found.speedup.lo <= new / old <= found.speedup.hi


def test_the_floor_widens_the_margin_of_sessions_too():
    old, new = session(1.5, 0.005), session(1.56, 0.005, seed=1)
    assert compare_speedups(old, new, floor=0.02).verdict is Verdict.FASTER
    assert compare_speedups(old, new, floor=0.06).verdict is Verdict.SAME


def whitney(n, m):
    """The exact distribution of the rank sum, as how many of all arrangements have it: Gauss's binomial."""
    counts = np.array([1], dtype=object)
    for i in range(1, m + 1):
        top, bottom = np.zeros(n + i + 1, dtype=object), np.zeros(i + 1, dtype=object)
        top[[0, -1]], bottom[[0, -1]] = (1, -1), (1, -1)
        product = np.convolve(counts, top)
        counts = np.zeros(len(product) - i, dtype=object)
        for k in range(len(counts)):  # divided by 1 - x^i
            counts[k] = product[k] + (counts[k - i] if k >= i else 0)
    return counts


@pytest.mark.parametrize(("n", "m"), [(10, 10), (10, 25), (30, 12)])
def test_the_interval_inverts_the_rank_sum_test(n, m):
    rng = np.random.default_rng(n + m)
    old, new = rng.normal(0, 0.1, n), rng.normal(0.3, 0.1, m)
    below = np.cumsum(whitney(n, m)) / math.comb(n + m, n)
    rank = next(k for k, p in enumerate(below) if p > 0.025)  # the first rank with a tail above 2.5 %
    shifts = np.sort(np.subtract.outer(new, old).ravel())
    found = compare_speedups(old, new).speedup
    assert math.log(found.estimate) == pytest.approx(np.median(shifts))
    # The limits are exact or one rank further out.
    assert shifts[rank - 2] - 1e-9 <= math.log(found.lo) <= shifts[rank - 1] + 1e-9
    assert shifts[-rank] - 1e-9 <= math.log(found.hi) <= shifts[1 - rank] + 1e-9


@settings(deadline=None)  # a busy machine is slow
@given(st.lists(st.floats(-2, 2), min_size=10, max_size=30), st.lists(st.floats(-2, 2), min_size=10, max_size=30))
def test_swapping_the_sessions_reverses_the_verdict(old, new):
    there, back = compare_speedups(old, new), compare_speedups(new, old)
    mirror = {Verdict.FASTER: Verdict.SLOWER, Verdict.SLOWER: Verdict.FASTER}
    assert back.verdict is mirror.get(there.verdict, there.verdict)
    assert back.p == pytest.approx(there.p)
    assert back.speedup.lo == pytest.approx(1 / there.speedup.hi)
    assert back.speedup.hi == pytest.approx(1 / there.speedup.lo)


def test_the_interval_of_a_shift_covers_and_false_alarms_are_few():
    found = [compare_speedups(session(1.5, 0.02, 20, s), session(1.5, 0.05, 35, s + 1000)) for s in range(600)]
    assert 0.92 < np.mean([f.speedup.lo <= 1 <= f.speedup.hi for f in found]) < 0.98
    assert sum(f.verdict in (Verdict.FASTER, Verdict.SLOWER) for f in found) <= 2


def test_a_session_is_the_same_as_itself():
    assert compare_speedups([0.3] * 10, [0.3] * 12) == Comparison(Interval(1, 1, 1), 1.0, Verdict.SAME)


@pytest.mark.parametrize(("old", "new"), [([0.1] * 9, [0.1] * 10), ([0.1] * 10, [0.1] * 9), ([[0.1] * 10], [0.1] * 10)])
def test_sessions_need_ten_samples_each(old, new):
    with pytest.raises(ValueError, match="at least 10"):
        compare_speedups(old, new)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_log_ratios_must_be_finite(bad):
    with pytest.raises(ValueError, match="finite"):
        compare_speedups([0.1] * 10, [0.1] * 9 + [bad])
