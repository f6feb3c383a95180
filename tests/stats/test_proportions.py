"""Intervals and tests of what was right or wrong, against hand formulas, published examples and brute force."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from tokbench.stats.proportions import Flips, mcnemar, paired_difference, surely_better, tango, tango_score, wilson

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


@pytest.mark.parametrize(("gained", "lost", "n"), [(0, 0, 5), (3, 9, 40), (2, 0, 2), (10, 30, 50_000)])
def test_counts_give_the_interval_of_the_images(gained, lost, n):
    assert tango(gained, lost, n) == paired_difference(*pairs(n - gained - lost, gained, lost, 0))


@pytest.mark.parametrize(("gained", "lost", "n"), [(0, 0, 0), (2, 2, 3), (-1, 0, 4)])
def test_counts_must_be_of_pairs(gained, lost, n):
    with pytest.raises(ValueError, match="no flips"):
        tango(gained, lost, n)


def test_the_score_takes_arrays():
    gained, lost = np.arange(5)[:, None], np.arange(7)
    expected = [[float(tango_score(g, k, 40, 0.03)) for k in range(7)] for g in range(5)]
    assert tango_score(gained, lost, 40, 0.03).tolist() == expected


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("n", [40, 5000])
def test_surely_better_is_an_interval_above_zero(n, level):
    flips = [(gained, lost) for gained in range(20) for lost in range(20)]
    above = [tango(gained, lost, n, level).lo > 1e-9 for gained, lost in flips]
    assert 0 < sum(above) < len(above)
    assert surely_better([g for g, _ in flips], [k for _, k in flips], level).tolist() == above


# McNemar


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 30))
def test_mcnemar_is_the_binomial_tail_twice(gained, lost, rest):
    first, second = pairs(rest, gained, lost, 0)
    fewest, flips = min(gained, lost), gained + lost
    tail = sum(math.comb(flips, k) for k in range(fewest + 1)) / 2**flips
    found = mcnemar(first, second)
    assert (found.gained, found.lost) == (gained, lost)
    assert found.p == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(second, first) == Flips(lost, gained, found.p)


def test_nothing_flipped_is_no_evidence():
    assert mcnemar([True, False], [True, False]) == Flips(0, 0, 1.0)
    with pytest.raises(ValueError, match="one length"):
        mcnemar([True], [True, False])
