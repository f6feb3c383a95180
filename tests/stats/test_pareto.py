"""The Pareto front and the best at equal cost against loops over all pairs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokbench.stats.pareto import EQUAL_COST, best_at_equal_cost, pareto_front

# So that there are ties, costs equal to within 1 %, costs that just are not, and costs that are not known.
costs = st.one_of(st.sampled_from([0.0, 1.0, 1.005, 1.009, 1.012, 2.0, math.nan, math.inf]))
points = st.lists(costs, max_size=12)
seeds = st.integers(0, 2**32 - 1)


def some_better(cost, seed):
    return np.random.default_rng(seed).random((len(cost), len(cost))) < 0.3


@given(points, seeds)
def test_the_front_against_a_loop(cost, seed):
    better = some_better(cost, seed)
    expected = []
    for b, own in enumerate(cost):
        beaten = any(other <= own * 1.01 and better[a, b] for a, other in enumerate(cost))
        expected.append(not math.isnan(own) and not beaten)
    found = pareto_front(cost, better)
    assert found.dtype == bool
    assert found.tolist() == expected


@given(points, seeds)
def test_the_best_at_equal_cost_against_a_loop(cost, seed):
    better = some_better(cost, seed)
    expected = []
    for b, own in enumerate(cost):
        peers = [a for a, c in enumerate(cost) if a != b and (c == own or abs(c - own) <= 0.01 * min(c, own))]
        expected.append(bool(peers) and not any(better[a, b] for a in peers))
    found = best_at_equal_cost(cost, better)
    assert found.dtype == bool
    assert found.tolist() == expected


def test_what_costs_no_more_than_a_hundredth_more_and_is_better_beats():
    better = [[False, True], [False, False]]
    for cost in ([1, 1], [1, 2], [1.0099, 1]):
        assert pareto_front(cost, better).tolist() == [True, False]
    for cost in ([2, 1], [1.011, 1]):
        assert pareto_front(cost, better).tolist() == [True, True]
    assert pareto_front([1.0099, 1], better, tolerance=0).tolist() == [True, True]


def test_the_best_needs_another_to_be_compared_with():
    better = [[False, True, True], [False, False, False], [False, False, False]]
    assert best_at_equal_cost([1, 1.009, 2], better).tolist() == [True, False, False]
    assert best_at_equal_cost([1, 1.011, 2], better).tolist() == [False, False, False]


@given(points, seeds)
def test_what_is_on_the_front_is_among_the_best_where_there_are_others(cost, seed):
    better = some_better(cost, seed)
    best = best_at_equal_cost(cost, better)
    alone = ~best_at_equal_cost(cost, np.zeros_like(better))
    assert not np.any(pareto_front(cost, better) & ~best & ~alone)


def test_the_tolerance_is_one_percent():
    assert EQUAL_COST == 0.01


@pytest.mark.parametrize("marks", [pareto_front, best_at_equal_cost])
def test_all_pairs_are_needed(marks):
    with pytest.raises(ValueError, match="n x n"):
        marks([1, 2], [[False]])
