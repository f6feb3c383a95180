"""Statistics of differences per image against their formulas, other tests, and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tokbench.stats.differences import images_to_settle, mean_interval, score_p
from tokbench.stats.proportions import tango

Z = 1.959963984540054


def flips(gained, lost, rest):
    return [1.0] * gained + [-1.0] * lost + [0.0] * rest


@pytest.mark.parametrize(("gained", "lost", "n"), [(0, 0, 1), (0, 0, 500), (7, 1, 20), (3, 40, 500), (12, 0, 12)])
def test_the_interval_of_flips_is_bonett_and_prices(gained, lost, n):
    p12, p21 = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = Z * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (n + 2))
    interval = mean_interval(flips(gained, lost, n - gained - lost))
    assert interval.estimate == pytest.approx((gained - lost) / n)
    assert interval.lo == pytest.approx(max(-1, p12 - p21 - half))
    assert interval.hi == pytest.approx(min(1, p12 - p21 + half))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_the_interval_contains_the_mean_and_has_a_width(differences):
    interval = mean_interval(differences)
    assert -1 <= interval.lo <= interval.estimate <= interval.hi <= 1
    assert interval.hi - interval.lo > 1 / (len(differences) + 2)
    other = mean_interval([-value for value in differences])
    assert (other.lo, other.hi) == pytest.approx((-interval.hi, -interval.lo))


def test_with_many_images_the_interval_is_the_usual_one():
    values = np.random.default_rng(0).choice([-1, -2 / 3, 0, 1 / 3, 1], 20_000)
    interval = mean_interval(values)
    half = Z * values.std() / math.sqrt(values.size)
    assert (interval.lo, interval.hi) == pytest.approx((values.mean() - half, values.mean() + half), abs=3e-4)


@pytest.mark.parametrize("n", [20, 100, 500])
@pytest.mark.parametrize("rare", [0.02, 0.3])
def test_the_interval_has_the_stated_coverage(n, rare):
    """Answers against a mixture of two baselines, or against the mean of seeds: differences are no whole numbers."""
    rng = np.random.default_rng(n)
    values, weights = np.array([-1, -0.3, 0, 0.7, 1]), np.array([rare, rare / 2, 1 - 3 * rare, rare, rare / 2])
    mean = float(values @ weights)
    intervals = [mean_interval(rng.choice(values, n, p=weights)) for _ in range(600)]
    covered = np.mean([one.lo <= mean <= one.hi for one in intervals])
    assert covered > 0.93
    if n * rare > 10:
        assert covered < 0.97


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 300))
def test_the_score_test_of_flips_is_mcnemars(gained, lost, rest):
    p = score_p([*flips(gained, lost, rest), 0.0])
    expected = 1.0 if gained == lost else stats.chi2.sf((gained - lost) ** 2 / (gained + lost), df=1)
    assert p == pytest.approx(expected)


def test_the_score_test_has_its_level():
    rng = np.random.default_rng(0)
    found = [score_p(rng.choice([-1, -1 / 3, 0, 1 / 3, 1], 300)) for _ in range(600)]
    assert 0.03 < np.mean(np.array(found) < 0.05) < 0.07


# How many images


@pytest.mark.parametrize(("gained", "lost", "n"), [(3, 2, 100), (60, 45, 500), (1, 0, 500), (231, 229, 1000)])
def test_the_number_of_images_is_where_tangos_interval_leaves_0(gained, lost, n):
    needed = images_to_settle(flips(gained, lost, n - gained - lost))
    difference, discordance = (gained - lost) / n, (gained + lost) / n

    def sure(images):
        return difference * images > Z * math.sqrt(discordance * images)

    assert sure(needed)
    assert not sure(needed - 1)
    # With whole copies of the data the interval itself says so.
    copies = math.ceil(needed / n)
    assert tango(copies * gained, copies * lost, copies * n).lo > 0
    if copies > 1:
        fewer = (needed - 1) // n
        assert tango(fewer * gained, fewer * lost, fewer * n).lo <= 1e-9


def test_the_direction_does_not_matter_and_no_difference_is_never_settled():
    assert images_to_settle(flips(5, 2, 93)) == images_to_settle(flips(2, 5, 93))
    assert images_to_settle(flips(4, 4, 92)) is None
    assert images_to_settle(flips(0, 0, 10)) is None
    assert images_to_settle([1 / 3, 1 / 3, 1 / 3, -1]) is None


@pytest.mark.parametrize("wrong", [[], [0.0, 1.5], [[0.0]], [float("nan")]])
def test_what_is_no_difference_is_refused(wrong):
    for function in (mean_interval, score_p, images_to_settle):
        with pytest.raises(ValueError, match="differences in"):
            function(wrong)
