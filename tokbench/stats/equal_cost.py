"""Accuracy against a baseline at equal cost, where the baseline was measured at a few costs only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokbench.stats.differences import mean_interval
from tokbench.stats.proportions import Interval


def mixture(cost: float, costs: ArrayLike, right: ArrayLike) -> NDArray[np.float64]:
    """How often a mixture of two baselines that costs exactly `cost` is right about each image.

    With a ≤ c ≤ b the neighbouring costs and t = (c - a)/(b - a), a mixture that takes the dearer baseline for a random
    share t of the images costs (1 - t)·a + t·b = c on average, and is right about an image with probability
    (1 - t)·right_a + t·right_b. So a comparison at equal cost is with something that can be run, not with a guess
    between two points.

    Args:
        cost: c, in the unit of `costs`.
        costs: (m,) the baselines' costs, in any order.
        right: (m, n) whether each baseline is right about each image, 0 or 1.

    Returns:
        (n,) in [0, 1].

    Raises:
        ValueError: c lies outside the baselines' costs.
    """
    known, answers = np.asarray(costs, dtype=float), np.asarray(right, dtype=float)
    order = np.argsort(known, kind="stable")
    known, answers = known[order], answers[order]
    if known.size == 0 or not known[0] <= cost <= known[-1]:
        raise ValueError(f"the cost {cost} lies outside the baselines' costs {known.tolist()}")
    after = int(np.searchsorted(known, cost))
    if known[after] == cost:
        return np.asarray(answers[after], dtype=np.float64)
    share = (cost - known[after - 1]) / (known[after] - known[after - 1])
    return np.asarray((1 - share) * answers[after - 1] + share * answers[after], dtype=np.float64)


def over_mixture(
    cost: Interval, own: ArrayLike, costs: Sequence[Interval], right: ArrayLike, level: float = 0.95
) -> Interval | None:
    """By how much a method is more often right than baselines of the same cost, on the same images.

    Costs may be measured with an error, as times are. The interval then reaches from the lower end where the method is
    as dear and the baselines as cheap as they may be, to the upper end in the opposite case; both within the baselines'
    range. It combines intervals of `level` for accuracy and costs, so it is rather too wide than too narrow. Costs that
    are counted have no error: their three numbers are equal.

    Args:
        cost: The method's.
        own: (n,) whether it is right about each image, 0 or 1.
        costs: m of the baselines, in the same unit.
        right: (m, n) whether each of them is right.
        level: The confidence level.

    Returns:
        The mean difference in [-1, 1] with the interval of `mean_interval`; None where the method's cost lies outside
        the baselines' costs.
    """
    answers = np.asarray(own, dtype=float)
    estimates = [one.estimate for one in costs]
    if not estimates or not min(estimates) <= cost.estimate <= max(estimates):
        return None

    def compared(value: float, known: list[float]) -> Interval:
        return mean_interval(answers - mixture(min(max(value, min(known)), max(known)), known, right), level)

    middle = compared(cost.estimate, estimates)
    unfavourable = compared(cost.hi, [one.lo for one in costs])
    favourable = compared(cost.lo, [one.hi for one in costs])
    ends = (middle, unfavourable, favourable)
    return Interval(middle.estimate, min(one.lo for one in ends), max(one.hi for one in ends))
