"""Statistics of right and wrong: intervals of a top-1 and of a paired difference, and the exact test of the flips.

Proportions lie in [0, 1]; whoever fills a table turns them into percent.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats


@dataclass(frozen=True)
class Interval:
    """An estimate between two confidence limits, all in the estimate's unit."""

    estimate: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Flips:
    """How many images became right, how many became wrong, and the p of as many each way being the rule."""

    gained: int
    lost: int
    p: float


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion.

    Args:
        successes: How many of the trials succeeded.
        n: How many trials there were.
        level: The confidence level.

    Returns:
        The proportion in [0, 1] and its interval.

    Raises:
        ValueError: `n` is not positive, or `successes` is not in 0..n.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n} trials is no proportion")
    limits = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return Interval(successes / n, float(limits.low), float(limits.high))


def paired_difference(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Interval:
    """Tango's score interval of a difference of paired proportions, p(second) - p(first).

    Args:
        first: (n,) booleans, one an image: was it right?
        second: (n,) booleans of the same images in the same order.
        level: The confidence level.

    Returns:
        The difference in [-1, 1] and its interval.

    Raises:
        ValueError: The two are empty or differ in length.
    """
    gained, lost, n = _flips(first, second)
    return tango(gained, lost, n, level)


def tango(gained: int, lost: int, n: int, level: float = 0.95) -> Interval:
    """Tango's score interval of a difference of paired proportions, from the counts that it depends on.

    It has a width even where no pair differs: ±z²/(n+z²), where Wald's interval would claim to be certain.

    Args:
        gained: How many of the pairs are right only afterwards.
        lost: How many are right only before.
        n: How many pairs there are, those that did not change included.
        level: The confidence level.

    Returns:
        The difference (gained - lost)/n in [-1, 1] and its interval.

    Raises:
        ValueError: `n` is not positive, or the counts are not among 0..n together.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17, equations 24 to 26.
    """
    if min(gained, lost) < 0 or gained + lost > n or n == 0:
        raise ValueError(f"{gained} gained and {lost} lost are no flips of {n} pairs")
    estimate = (gained - lost) / n
    z = _quantile(level)

    def score(delta: float) -> float:
        return float(tango_score(gained, lost, n, delta))

    # The score falls from +inf at -1 to -inf at 1, save where every single pair flipped the same way.
    lo = -1.0 if lost == n else optimize.brentq(lambda delta: score(delta) - z, -1.0, estimate)
    hi = 1.0 if gained == n else optimize.brentq(lambda delta: score(delta) + z, estimate, 1.0)
    return Interval(estimate, float(lo), float(hi))


def tango_score(gained: ArrayLike, lost: ArrayLike, n: int, delta: float) -> NDArray[np.float64]:
    """Standard errors by which an observed difference exceeds `delta`; `tango` keeps the deltas within ±z.

    Args:
        gained: Counts of any shape.
        lost: Counts of a shape that goes with it.
        n: How many pairs there are.
        delta: The difference that is tested, in [-1, 1].

    Source: Tango 1998, equations 24 to 26.
    """
    up, down = np.asarray(gained, dtype=float), np.asarray(lost, dtype=float)
    a = 2 * n
    b = (2 * n - up + down) * delta - up - down
    c = -down * delta * (1 - delta)
    # P(lost) at its likeliest given delta, for the variance of the difference.
    losing = (np.sqrt(np.maximum(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * losing + delta * (1 - delta))
    # Where nothing flipped the variance at delta = 0 is exactly 0, and so is the numerator.
    return np.asarray((up - down - n * delta) / np.sqrt(np.maximum(variance, np.finfo(float).tiny)))


def surely_better(gained: ArrayLike, lost: ArrayLike, level: float = 0.95) -> NDArray[np.bool_]:
    """Whether `tango`'s interval lies above zero, for many counts at once.

    Nothing has to be solved for it: at a difference of 0 the score is (gained - lost)/√(gained + lost) whatever n is.

    Args:
        gained: Counts of any shape.
        lost: Counts of a shape that goes with it.
        level: The interval's confidence level.

    Returns:
        Booleans of their common shape.
    """
    up, down = np.asarray(gained, dtype=float), np.asarray(lost, dtype=float)
    return np.asarray(up - down > _quantile(level) * np.sqrt(up + down), dtype=np.bool_)


def mcnemar(before: ArrayLike, after: ArrayLike) -> Flips:
    """McNemar's test in its exact form: are the images that flipped as likely to flip one way as the other?

    Args:
        before: (n,) booleans, one an image: was it right?
        after: (n,) booleans of the same images in the same order.

    Returns:
        The flips each way and the two-sided p, 1 where nothing flipped.

    Raises:
        ValueError: The two are empty or differ in length.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions or
    percentages"; exact by the binomial distribution of the flips.
    """
    gained, lost, _ = _flips(before, after)
    p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Flips(gained, lost, p)


def _flips(before: ArrayLike, after: ArrayLike) -> tuple[int, int, int]:
    """The pairs gained, those lost, and all there are."""
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise ValueError(f"pairs need two sequences of one length, not {first.shape} and {second.shape}")
    return int(np.sum(second & ~first)), int(np.sum(first & ~second)), first.size


def _quantile(level: float) -> float:
    """How many standard errors to either side of 0 hold the level: 1.96 for 95 %."""
    return float(stats.norm.ppf((1 + level) / 2))
