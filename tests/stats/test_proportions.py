"""Intervals and tests of proportions against their formulas, published examples and brute force."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from tokbench.stats.proportions import Flips, mcnemar, surely_better, tango, tango_score, wilson

Z = 1.959963984540054


def pairs(both, gained, lost, neither):
    first = [True] * both + [False] * gained + [True] * lost + [False] * neither
    second = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return first, second


def near(interval, lo, hi, tolerance):
    return interval.lo == pytest.approx(lo, abs=tolerance) and interval.hi == pytest.approx(hi, abs=tolerance)


# Proportions


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (361, 500), (49_999, 50_000)])
def test_wilson_equals_the_formula(successes, n):
    p = successes / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    interval = wilson(successes, n)
    assert interval.estimate == p
    assert near(interval, max(0, centre - half), min(1, centre + half), 1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (5, 4), (-1, 4)])
def test_wilson_rejects_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="invalid counts"):
        wilson(successes, n)


def test_tango_reproduces_the_papers_example():
    # Section 6.1, table V: 43 lenses disinfected by both treatments, one by the old one only.
    interval = tango(0, 1, 44, level=0.90)
    assert interval.estimate == -1 / 44
    assert round(interval.lo, 3) == -0.096


@pytest.mark.parametrize("n", [1, 10, 500, 50_000])
def test_tango_has_a_width_if_nothing_changed(n):
    interval = tango(0, 0, n)
    assert interval.estimate == 0
    assert near(interval, -(Z**2) / (n + Z**2), Z**2 / (n + Z**2), 1e-8)


@pytest.mark.parametrize("n", [1, 5, 100])
def test_tango_if_every_pair_changed(n):
    worse, better = tango(0, n, n), tango(n, 0, n)
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
    interval = tango(gained, lost, n)
    step = 0.002
    kept = [d for d in np.arange(-0.998, 0.999, step) if abs(rao_score(gained, lost, n, d)) <= Z]
    assert near(interval, min(kept), max(kept), step)
    assert rao_score(gained, lost, n, interval.lo) == pytest.approx(Z, abs=1e-4)
    assert rao_score(gained, lost, n, interval.hi) == pytest.approx(-Z, abs=1e-4)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_tango_changes_its_sign_if_the_two_are_swapped(gained, lost, rest):
    n = max(1, gained + lost + rest)
    interval, swapped = tango(gained, lost, n), tango(lost, gained, n)
    assert -1 <= interval.lo <= interval.estimate <= interval.hi <= 1
    assert interval.lo < interval.hi
    assert near(swapped, -interval.hi, -interval.lo, 1e-9)


def test_tango_has_the_stated_coverage():
    rng = np.random.default_rng(0)
    n, p_gained, p_lost = 200, 0.02, 0.06
    covered = 0
    for gained, lost, _ in rng.multinomial(n, [p_gained, p_lost, 1 - p_gained - p_lost], size=600):
        interval = tango(gained, lost, n)
        covered += interval.lo <= p_gained - p_lost <= interval.hi
    assert 0.925 < covered / 600 < 0.975


@pytest.mark.parametrize(("gained", "lost", "n"), [(0, 0, 0), (2, 2, 3), (-1, 0, 4)])
def test_tango_rejects_impossible_counts(gained, lost, n):
    with pytest.raises(ValueError, match="invalid counts"):
        tango(gained, lost, n)


def test_tango_score_accepts_arrays():
    gained, lost = np.arange(5)[:, None], np.arange(7)
    expected = [[float(tango_score(g, k, 40, 0.03)) for k in range(7)] for g in range(5)]
    assert tango_score(gained, lost, 40, 0.03).tolist() == expected


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("n", [40, 5000])
def test_surely_better_means_an_interval_above_zero(n, level):
    flips = [(gained, lost) for gained in range(20) for lost in range(20)]
    above = [tango(gained, lost, n, level).lo > 1e-9 for gained, lost in flips]
    assert 0 < sum(above) < len(above)
    assert surely_better([g for g, _ in flips], [k for _, k in flips], level).tolist() == above


# McNemar


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 30))
def test_mcnemar_is_twice_the_binomial_tail(gained, lost, rest):
    first, second = pairs(rest, gained, lost, 0)
    fewest, flips = min(gained, lost), gained + lost
    tail = sum(math.comb(flips, k) for k in range(fewest + 1)) / 2**flips
    found = mcnemar(first, second)
    assert (found.gained, found.lost) == (gained, lost)
    assert found.p == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(second, first) == Flips(lost, gained, found.p)


def test_mcnemar_is_1_if_nothing_changed():
    assert mcnemar([True, False], [True, False]) == Flips(0, 0, 1.0)


@pytest.mark.parametrize(("before", "after"), [([], []), ([True], [True, False])])
def test_mcnemar_needs_pairs(before, after):
    with pytest.raises(ValueError, match="same length"):
        mcnemar(before, after)
