"""Statistics of correct and wrong predictions: intervals of an accuracy and of a paired difference, McNemar's test.

Proportions are in [0, 1]; the table converts them to percent.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats


@dataclass(frozen=True)
class Interval:
    """An estimate with its lower and upper confidence limits, all in the same unit."""

    estimate: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Flips:
    """How many images became correct (`gained`), how many became wrong (`lost`), and McNemar's two-sided p."""

    gained: int
    lost: int
    p: float


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion.

    Args:
        successes: The number of successful trials.
        n: The number of trials.
        level: The confidence level.

    Returns:
        The proportion in [0, 1] and its interval.

    Raises:
        ValueError: `n` is not positive, or `successes` is not in 0..n.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"invalid counts: {successes} successes of {n} trials")
    limits = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return Interval(successes / n, float(limits.low), float(limits.high))


def tango(gained: int, lost: int, n: int, level: float = 0.95) -> Interval:
    """Tango's score interval of a difference of paired proportions.

    It has a positive width, ±z²/(n+z²), even if no pair differs; Wald's interval would have width zero.

    Args:
        gained: The number of pairs that are correct only afterwards.
        lost: The number of pairs that are correct only before.
        n: The number of all pairs, including those that did not change.
        level: The confidence level.

    Returns:
        The difference (gained - lost)/n in [-1, 1] and its interval.

    Raises:
        ValueError: `n` is not positive, a count is negative, or the counts sum to more than n.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17, equations 24 to 26.
    """
    if min(gained, lost) < 0 or gained + lost > n or n == 0:
        raise ValueError(f"invalid counts: {gained} gained and {lost} lost of {n} pairs")
    estimate = (gained - lost) / n
    z = _quantile(level)

    def score(delta: float) -> float:
        return float(tango_score(gained, lost, n, delta))

    # The score falls from +inf at -1 to -inf at 1, unless all pairs changed in the same direction.
    lo = -1.0 if lost == n else optimize.brentq(lambda delta: score(delta) - z, -1.0, estimate)
    hi = 1.0 if gained == n else optimize.brentq(lambda delta: score(delta) + z, estimate, 1.0)
    return Interval(estimate, float(lo), float(hi))


def tango_score(gained: ArrayLike, lost: ArrayLike, n: int, delta: float) -> NDArray[np.float64]:
    """By how many standard errors an observed difference exceeds `delta`; `tango` keeps the deltas within ±z.

    Args:
        gained: Counts of any shape.
        lost: Counts of a broadcastable shape.
        n: The number of pairs.
        delta: The tested difference, in [-1, 1].

    Source: Tango 1998, equations 24 to 26.
    """
    up, down = np.asarray(gained, dtype=float), np.asarray(lost, dtype=float)
    a = 2 * n
    b = (2 * n - up + down) * delta - up - down
    c = -down * delta * (1 - delta)
    # The maximum-likelihood estimate of P(lost) given delta, for the variance of the difference.
    p_lost = (np.sqrt(np.maximum(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * p_lost + delta * (1 - delta))
    # If no pair changed, the variance at delta = 0 is exactly 0, and so is the numerator.
    return np.asarray((up - down - n * delta) / np.sqrt(np.maximum(variance, np.finfo(float).tiny)))


def surely_better(gained: ArrayLike, lost: ArrayLike, level: float = 0.95) -> NDArray[np.bool_]:
    """Whether `tango`'s interval lies above zero, for arrays of counts.

    This needs no root finding: at a difference of 0 the score is (gained - lost)/√(gained + lost) for any n.

    Args:
        gained: Counts of any shape.
        lost: Counts of a broadcastable shape.
        level: The interval's confidence level.

    Returns:
        Booleans of the broadcast shape.
    """
    up, down = np.asarray(gained, dtype=float), np.asarray(lost, dtype=float)
    return np.asarray(up - down > _quantile(level) * np.sqrt(up + down), dtype=np.bool_)


def mcnemar(before: ArrayLike, after: ArrayLike) -> Flips:
    """McNemar's exact test: among images whose result changed, are gains and losses equally likely?

    Args:
        before: (n,) booleans, one per image: is the prediction correct?
        after: (n,) booleans of the same images in the same order.

    Returns:
        The number of changes in each direction, and the two-sided p, which is 1 if nothing changed.

    Raises:
        ValueError: The arrays are empty or differ in length.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions or
    percentages"; exact p from the binomial distribution of the changes.
    """
    gained, lost, _ = _flips(before, after)
    p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Flips(gained, lost, p)


def _flips(before: ArrayLike, after: ArrayLike) -> tuple[int, int, int]:
    """The numbers of gained pairs, of lost pairs, and of all pairs."""
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise ValueError(f"expected two non-empty sequences of the same length, got {first.shape} and {second.shape}")
    return int(np.sum(second & ~first)), int(np.sum(first & ~second)), first.size


def _quantile(level: float) -> float:
    """The two-sided quantile of the normal distribution: 1.96 for 95 %."""
    return float(stats.norm.ppf((1 + level) / 2))
