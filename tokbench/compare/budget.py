"""The keep that a compute budget leaves: `budget(0.7)` solved by tracing."""

from __future__ import annotations

from collections.abc import Callable

from tokbench.errors import UserError

STEPS = 10_000  # a keep has four decimals
CLOSE_ENOUGH = 0.0025  # of the target: nearer is not worth another trace


class OutOfReachError(UserError):
    """No keep meets the budget."""


def solve_keep(cost: Callable[[float], float], target: float, tolerance: float = 0.01) -> float:
    """The keep that costs the target, by bisection over keeps of four decimals: at most 14 costs are taken.

    A cost is a step function, since a reduction leaves whole tokens, so what is solved for may not exist: the nearest
    keep that was seen is taken. Towards the target it must rise, at keep 1 it may fall to the plain model's.

    Args:
        cost: Of a keep in (0, 1), in the unit of the target; seconds long, so it is called no oftener than needed.
        target: What it shall be, above 0.
        tolerance: By what part of the target it may miss.

    Raises:
        OutOfReachError: No keep comes within the tolerance; says what the nearest one costs.
    """
    seen: dict[float, float] = {}
    low, high = 0, STEPS
    while high - low > 1:
        middle = (low + high) // 2
        keep = middle / STEPS
        seen[keep] = cost(keep)
        if abs(seen[keep] - target) <= CLOSE_ENOUGH * target:
            return keep
        low, high = (middle, high) if seen[keep] < target else (low, middle)
    best = min(seen, key=lambda keep: abs(seen[keep] - target))
    if abs(seen[best] - target) > tolerance * target:
        raise OutOfReachError(
            f"no keep comes within {tolerance:.0%} of the budget {target:g}: "
            f"the nearest that can be reached is {seen[best]:.4g}, with keep {best:g}"
        )
    return best
