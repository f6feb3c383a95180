"""Accuracy at equal cost against mixtures that are drawn and by hand."""

import numpy as np
import pytest

from tokbench.stats.differences import mean_interval
from tokbench.stats.equal_cost import mixture, over_mixture
from tokbench.stats.proportions import Interval

COSTS = [1.0, 0.4, 0.7]
RIGHT = np.array([[1, 1, 1, 0, 1], [0, 1, 0, 0, 1], [1, 1, 0, 0, 0]])


def exact(cost):
    return Interval(cost, cost, cost)


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (1.0, [1, 1, 1, 0, 1]),
        (0.7, [1, 1, 0, 0, 0]),
        (0.4, [0, 1, 0, 0, 1]),
        (0.85, [1, 1, 0.5, 0, 0.5]),
        (0.475, [0.25, 1, 0, 0, 0.75]),
    ],
)
def test_a_mixture_is_between_its_neighbours(cost, expected):
    assert mixture(cost, COSTS, RIGHT) == pytest.approx(expected)


@pytest.mark.parametrize("cost", [0.39, 1.01])
def test_there_is_no_mixture_beyond_the_costs(cost):
    with pytest.raises(ValueError, match="outside"):
        mixture(cost, COSTS, RIGHT)
    assert over_mixture(exact(cost), RIGHT[0], [exact(one) for one in COSTS], RIGHT) is None


def test_a_mixture_that_is_drawn_costs_and_answers_the_same():
    rng = np.random.default_rng(0)
    cost, draws = 0.52, 40_000
    dearer = rng.random((draws, 1)) < (cost - 0.4) / (0.7 - 0.4)
    assert np.where(dearer, 0.7, 0.4).mean() == pytest.approx(cost, abs=0.002)
    assert np.where(dearer, RIGHT[2], RIGHT[1]).mean(axis=0) == pytest.approx(mixture(cost, COSTS, RIGHT), abs=0.01)


def test_exact_costs_give_the_interval_of_the_mean():
    own = np.array([1, 1, 1, 1, 0])
    found = over_mixture(exact(0.85), own, [exact(one) for one in COSTS], RIGHT)
    assert found == mean_interval(own - np.array([1, 1, 0.5, 0, 0.5]))
    assert found.estimate == pytest.approx(0.2)


def test_a_baseline_against_itself_differs_by_0():
    for index, cost in enumerate(COSTS):
        assert over_mixture(exact(cost), RIGHT[index], [exact(one) for one in COSTS], RIGHT).estimate == 0


def test_uncertain_costs_widen_the_interval_to_what_they_allow():
    rng = np.random.default_rng(0)
    right = (rng.random((3, 400)) < np.array([[0.9], [0.3], [0.6]])).astype(float)
    own = (rng.random(400) < 0.7).astype(float)
    known = [exact(1.0), Interval(0.4, 0.35, 0.45), Interval(0.7, 0.65, 0.75)]
    cost = Interval(0.6, 0.55, 0.65)
    found = over_mixture(cost, own, known, right)
    ends = [
        mean_interval(own - mixture(value, costs, right))
        for value, costs in ((0.6, [1.0, 0.4, 0.7]), (0.65, [1.0, 0.35, 0.65]), (0.55, [1.0, 0.45, 0.75]))
    ]
    assert found == Interval(ends[0].estimate, min(one.lo for one in ends), max(one.hi for one in ends))
    assert found.lo < ends[0].lo < ends[0].hi < found.hi
    # An end beyond the range is taken at the range's end.
    assert over_mixture(Interval(0.98, 0.9, 1.2), own, known, right) is not None


def test_the_interval_covers_the_true_difference():
    rng = np.random.default_rng(1)
    n, cost, costs = 300, 0.8, [exact(1.0), exact(0.5)]
    covered = 0
    for _ in range(400):
        difficulty = rng.random(n)
        right = np.stack([difficulty < 0.85, difficulty + rng.normal(0, 0.1, n) < 0.6]).astype(float)
        own = (difficulty + rng.normal(0, 0.05, n) < 0.8).astype(float)
        found = over_mixture(exact(cost), own, costs, right)
        # In expectation: P(difficulty + noise < x) is x for noise that stays within the range, up to its edges.
        covered += found.lo <= 0.8 - (0.6 * 0.85 + 0.4 * 0.6) <= found.hi
    assert 0.925 < covered / 400 < 0.975


def test_without_baselines_there_is_nothing_to_compare_with():
    assert over_mixture(exact(0.5), [1.0], [], np.zeros((0, 1))) is None
