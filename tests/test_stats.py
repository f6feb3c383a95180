"""The statistics against hand formulas, published examples, brute force and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from tokbench.stats import (
    MIN_MARGIN,
    Comparison,
    Interval,
    Verdict,
    compare_times,
    floor_of,
    median_interval,
    paired_difference,
    pareto,
    percentile,
    wilson,
)

Z = 1.959963984540054


def pairs(both, gained, lost, neither):
    first = [True] * both + [False] * gained + [True] * lost + [False] * neither
    second = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return first, second


def near(interval, lo, hi, tolerance):
    return interval.lo == pytest.approx(lo, abs=tolerance) and interval.hi == pytest.approx(hi, abs=tolerance)


# Proportions


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (361, 500), (49_999, 50_000)])
def test_wilson_is_the_formula(successes, n):
    p = successes / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    interval = wilson(successes, n)
    assert interval.estimate == p
    assert near(interval, max(0, centre - half), min(1, centre + half), 1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (5, 4), (-1, 4)])
def test_wilson_refuses_what_is_no_proportion(successes, n):
    with pytest.raises(ValueError, match="no proportion"):
        wilson(successes, n)


def test_tango_gives_the_papers_example():
    # Section 6.1, table V: 43 lenses disinfected by both treatments, one by the old one only.
    interval = paired_difference(*pairs(43, 0, 1, 0), level=0.90)
    assert interval.estimate == -1 / 44
    assert round(interval.lo, 3) == -0.096


@pytest.mark.parametrize("n", [1, 10, 500, 50_000])
def test_tango_is_honest_where_nothing_flipped(n):
    interval = paired_difference(*pairs(n, 0, 0, 0))
    assert interval.estimate == 0
    assert near(interval, -(Z**2) / (n + Z**2), Z**2 / (n + Z**2), 1e-8)


@pytest.mark.parametrize("n", [1, 5, 100])
def test_tango_where_every_pair_flipped(n):
    worse, better = paired_difference(*pairs(0, 0, n, 0)), paired_difference(*pairs(0, n, 0, 0))
    assert (worse.estimate, worse.lo) == (-1, -1)
    assert (better.estimate, better.hi) == (1, 1)
    assert worse.hi == pytest.approx(-better.lo)


def rao_score(gained, lost, n, delta):
    """The score test of P(gained) - P(lost) = delta from first principles, nuisance maximised numerically."""

    def cells(q):
        return np.array([q + delta, q, 1 - 2 * q - delta])

    counts = np.array([gained, lost, n - gained - lost])
    low, high = max(0.0, -delta), (1 - delta) / 2
    eps = 1e-12
    found = optimize.minimize_scalar(
        lambda q: -np.sum(counts * np.log(cells(q))),
        bounds=(low + eps, high - eps),
        method="bounded",
        options={"xatol": 1e-12},
    )
    p = cells(found.x)
    gradient = np.array([[1.0, 0.0, -1.0], [1.0, 1.0, -2.0]])  # of the cells, by delta and by q
    information = n * (gradient / p) @ gradient.T
    return (gradient[0] / p) @ counts * math.sqrt(np.linalg.inv(information)[0, 0])


@pytest.mark.parametrize(
    ("both", "gained", "lost", "neither"), [(12, 1, 7, 1), (50, 40, 20, 50), (3, 2, 2, 3), (400, 9, 31, 60)]
)
def test_tango_against_brute_force(both, gained, lost, neither):
    n = both + gained + lost + neither
    interval = paired_difference(*pairs(both, gained, lost, neither))
    step = 0.002
    kept = [d for d in np.arange(-0.998, 0.999, step) if abs(rao_score(gained, lost, n, d)) <= Z]
    assert near(interval, min(kept), max(kept), step)
    assert rao_score(gained, lost, n, interval.lo) == pytest.approx(Z, abs=1e-4)
    assert rao_score(gained, lost, n, interval.hi) == pytest.approx(-Z, abs=1e-4)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_tango_turns_round_when_the_two_are_swapped(outcomes):
    first, second = zip(*outcomes, strict=True)
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert -1 <= there.lo <= there.estimate <= there.hi <= 1
    assert there.lo < there.hi
    assert near(back, -there.hi, -there.lo, 1e-9)


def test_tango_covers():
    rng = np.random.default_rng(0)
    n, p_gained, p_lost = 200, 0.02, 0.06
    covered = 0
    for gained, lost, rest in rng.multinomial(n, [p_gained, p_lost, 1 - p_gained - p_lost], size=600):
        interval = paired_difference(*pairs(rest, gained, lost, 0))
        covered += interval.lo <= p_gained - p_lost <= interval.hi
    assert 0.925 < covered / 600 < 0.975


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False])])
def test_pairs_must_be_pairs(first, second):
    with pytest.raises(ValueError, match="one length"):
        paired_difference(first, second)


# Medians and percentiles


@pytest.mark.parametrize("n", [6, 10, 11, 30, 101])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_median_interval_is_the_quantile_tests(n, level):
    samples = np.random.default_rng(n).lognormal(size=n)
    limits = stats.quantile_test(samples, p=0.5).confidence_interval(level)
    assert median_interval(samples, level) == Interval(float(np.median(samples)), limits.low, limits.high)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_samples_give_their_range(n):
    assert median_interval(range(n)) == Interval((n - 1) / 2, 0, n - 1)


@pytest.mark.parametrize("n", [10, 25])
def test_median_interval_covers(n):
    samples = np.random.default_rng(n).lognormal(size=(600, n))  # of median 1
    intervals = [median_interval(row) for row in samples]
    assert np.mean([i.lo <= 1 <= i.hi for i in intervals]) > 0.935


def test_no_samples_have_no_median():
    with pytest.raises(ValueError, match="median"):
        median_interval([])


@pytest.mark.parametrize(("q", "enough"), [(0.9, 64), (0.1, 64), (0.99, 662)])
def test_percentiles_wait_for_enough_samples(q, enough):
    assert percentile(range(enough - 1), q) is None
    assert percentile(range(enough), q) == pytest.approx((enough - 1) * q)


@pytest.mark.parametrize("q", [0, 1, 90])
def test_a_quantile_is_a_fraction(q):
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile(range(1000), q)


# Times

seconds = st.floats(1e-5, 1e2)
timings = st.lists(st.tuples(seconds, seconds), min_size=10, max_size=40)


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
        (1.005, 0.002, Verdict.AMBIGUOUS),  # sure to be faster, not sure to be so by half a percent
    ],
)
def test_verdicts(speedup, noise, verdict):
    assert compare_times(*noisy(speedup, noise)).verdict is verdict


def test_ten_rounds_suffice_and_nine_do_not():
    base, other = noisy(2, 0.01, n=10)
    assert compare_times(base, other).verdict is Verdict.FASTER
    with pytest.raises(ValueError, match="at least 10"):
        compare_times(base[:9], other[:9])


def test_the_noise_floor_widens_the_margin():
    base, other = noisy(1.03, 0.005)
    assert compare_times(base, other, floor=0.01).verdict is Verdict.FASTER
    assert compare_times(base, other, floor=0.10).verdict is Verdict.SAME


@settings(deadline=None, max_examples=25)  # up to 13 pairs with ties are permuted exactly, which takes a while
@given(timings)
def test_swapping_turns_the_verdict_round(times):
    base, other = np.array(times).T
    there, back = compare_times(base, other), compare_times(other, base)
    mirror = {Verdict.FASTER: Verdict.SLOWER, Verdict.SLOWER: Verdict.FASTER}
    assert back.verdict is mirror.get(there.verdict, there.verdict)
    assert back.p == there.p
    assert back.speedup.lo == pytest.approx(1 / there.speedup.hi)
    assert back.speedup.hi == pytest.approx(1 / there.speedup.lo)
    assert back.speedup.estimate == pytest.approx(1 / there.speedup.estimate)


@settings(deadline=None, max_examples=25)  # up to 13 pairs with ties are permuted exactly, which takes a while
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
def test_times_must_be_times(bad):
    with pytest.raises(ValueError, match="positive"):
        compare_times([1.0] * 10, [1.0] * 9 + [bad])


def test_few_false_alarms():
    verdicts = [compare_times(*noisy(1.0, 0.02, seed=seed)).verdict for seed in range(300)]
    assert sum(v in (Verdict.FASTER, Verdict.SLOWER) for v in verdicts) <= 1


def test_floor_is_the_farthest_end():
    def aa(lo, hi):
        return Comparison(Interval(1.0, lo, hi), 0.5, Verdict.AMBIGUOUS)

    assert floor_of([]) == 0
    assert floor_of([aa(0.99, 1.03), aa(0.98, 1.01)]) == pytest.approx(0.03)
    assert floor_of([aa(0.9, 1.03)]) == pytest.approx(1 / 0.9 - 1)


def test_a_session_is_no_noisier_than_its_floor():
    blocks = [compare_times(*noisy(1.0, 0.02, seed=seed)) for seed in range(5)]
    floor = floor_of(blocks) * (1 + 1e-9)  # rounding: the floor is one of these very ends
    assert floor > MIN_MARGIN
    assert all(compare_times(*noisy(1.0, 0.02, seed=s), floor=floor).verdict is Verdict.SAME for s in range(5))


# The Pareto front

coordinates = st.one_of(st.integers(0, 4).map(float), st.just(math.nan), st.just(math.inf))


@given(st.lists(st.tuples(coordinates, coordinates), max_size=20))
def test_pareto_against_brute_force(points):
    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and (a[0] < b[0] or a[1] > b[1])

    expected = [not any(map(math.isnan, b)) and not any(beats(a, b) for a in points if a != b) for b in points]
    front = pareto([p[0] for p in points], [p[1] for p in points])
    assert front.dtype == bool
    assert front.tolist() == expected


def test_coinciding_points_are_all_kept():
    assert pareto([1, 1, 2], [3, 3, 3]).tolist() == [True, True, False]


def test_a_point_has_a_cost_and_a_value():
    with pytest.raises(ValueError, match="one cost"):
        pareto([1, 2], [1])
