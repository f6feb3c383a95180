"""Which points are worth their cost: the Pareto front, and the best among points of equal cost."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

EQUAL_COST = 0.01
"""Costs that differ by no more than this fraction count as equal.

A reduction leaves whole tokens, so equal costs to the last digit cannot be had: `budget` accepts a keep that comes
this close, and the marks of a table treat such rows as equal.
"""


def equal_cost(one: float, other: float) -> bool:
    """Whether two costs count as equal: the larger is at most 1 + `EQUAL_COST` times the smaller."""
    return max(one, other) <= (1 + EQUAL_COST) * min(one, other)


def pareto_front(cost: ArrayLike, better: ArrayLike, tolerance: float = EQUAL_COST) -> NDArray[np.bool_]:
    """Which points are on the Pareto front: no other point costs no more and is significantly better.

    Costing no more means at most 1 + `tolerance` times as much. A point with cost NaN is never on the front and
    excludes no other point.

    Args:
        cost: (n,) the cost to be minimised, in any unit, not negative.
        better: (n, n) booleans: is the point of this row significantly better than the point of this column?
        tolerance: The largest relative difference of costs that counts as none.

    Returns:
        (n,) booleans.

    Raises:
        ValueError: The shapes do not match.
    """
    costs, significant = _checked(cost, better)
    no_dearer = costs[:, None] <= (1 + tolerance) * costs
    return np.asarray(~np.isnan(costs) & ~np.any(no_dearer & significant, axis=0), dtype=np.bool_)


def best_at_equal_cost(cost: ArrayLike, better: ArrayLike, tolerance: float = EQUAL_COST) -> NDArray[np.bool_]:
    """Which points no other point of equal cost significantly beats, if there are any others.

    Args:
        cost: As for `pareto_front`.
        better: As for `pareto_front`.
        tolerance: As for `pareto_front`; the larger of two equal costs is at most 1 + `tolerance` times the smaller.

    Returns:
        (n,) booleans; False for a point that no other equals in cost.

    Raises:
        ValueError: The shapes do not match.
    """
    costs, significant = _checked(cost, better)
    no_dearer = costs[:, None] <= (1 + tolerance) * costs
    others = no_dearer & no_dearer.T & ~np.eye(costs.size, dtype=bool)
    return np.asarray(np.any(others, axis=0) & ~np.any(others & significant, axis=0), dtype=np.bool_)


def _checked(cost: ArrayLike, better: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    costs, significant = np.asarray(cost, dtype=float), np.asarray(better, dtype=bool)
    if costs.ndim != 1 or significant.shape != (costs.size, costs.size):
        raise ValueError(f"n points need n costs and n x n comparisons, got {costs.shape} and {significant.shape}")
    return costs, significant
