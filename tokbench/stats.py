"""Pure statistics: intervals of proportions and medians, the paired test of two times, the Pareto front.

Proportions lie in [0, 1] and times are seconds; whoever fills a table turns them into percent and milliseconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

# Below ten rounds the signed-rank test cannot get under SIGNIFICANCE whatever the times are: with n pairs its
# smallest two-sided p is 2/2^n, which is 0.0039 for nine and 0.00195 for ten.
MIN_ROUNDS = 10

# A table holds dozens of comparisons. At 0.002 one of 50 is wrong by chance with probability under a tenth.
SIGNIFICANCE = 0.002

# Half a percent is what identical programs differ by on a quiet machine (code alignment, clocks), and less than
# anybody would choose a method for.
MIN_MARGIN = 0.005

# Log-ratios equal up to this many decimals are ties. A clock of 1 ns resolves a second to nine.
TIE_DECIMALS = 12

# A tail percentile is told only where samples lie beyond it: at least two of them with this confidence. It is
# the rule of MLPerf Inference's early stopping, and gives 64 samples for p90 and 662 for p99.
TAIL_CONFIDENCE = 0.99


@dataclass(frozen=True)
class Interval:
    """An estimate between two confidence limits, all in the estimate's unit."""

    estimate: float
    lo: float
    hi: float


class Verdict(StrEnum):
    """What a comparison of two times supports saying."""

    FASTER = "FASTER"
    SLOWER = "SLOWER"
    SAME = "SAME"
    AMBIGUOUS = "AMBIGUOUS"


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two times: the speedup (a ratio), the test's p and the verdict."""

    speedup: Interval
    p: float
    verdict: Verdict


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

    It has a width even where no pair differs: ±z²/(n+z²), where Wald's interval would claim to be certain.

    Args:
        first: (n,) booleans, one an image: was it right?
        second: (n,) booleans of the same images in the same order.
        level: The confidence level.

    Returns:
        The difference in [-1, 1] and its interval.

    Raises:
        ValueError: The two are empty or differ in length.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17, equations 24 to 26.
    """
    before, after = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if before.ndim != 1 or before.shape != after.shape or before.size == 0:
        raise ValueError(f"pairs need two sequences of one length, not {before.shape} and {after.shape}")
    n = before.size
    gained, lost = int(np.sum(after & ~before)), int(np.sum(before & ~after))
    estimate = (gained - lost) / n
    z = float(stats.norm.ppf((1 + level) / 2))
    score = partial(_tango_score, gained, lost, n)
    # The score falls from +inf at -1 to -inf at 1, save where every single pair flipped the same way.
    lo = -1.0 if lost == n else optimize.brentq(lambda delta: score(delta) - z, -1.0, estimate)
    hi = 1.0 if gained == n else optimize.brentq(lambda delta: score(delta) + z, estimate, 1.0)
    return Interval(estimate, float(lo), float(hi))


def median_interval(samples: ArrayLike, level: float = 0.95) -> Interval:
    """The median and its distribution-free interval between two order statistics.

    Where the samples are too few for the level (under six for 95 %), the interval is the smallest to the
    largest sample, and covers the median less often than the level says.

    Raises:
        ValueError: There are no samples.

    Source: Conover 1999, "Practical Nonparametric Statistics", section 3.2.
    """
    values = np.sort(np.asarray(samples, dtype=float))
    if values.size == 0:
        raise ValueError("no samples have no median")
    # The median falls below the sample of this rank with probability under (1 - level)/2, and as rarely above
    # its mirror image.
    rank = max(1, int(stats.binom.ppf((1 - level) / 2, values.size, 0.5)))
    return Interval(float(np.median(values)), float(values[rank - 1]), float(values[-rank]))


def percentile(samples: ArrayLike, q: float) -> float | None:
    """The q-quantile of the samples, or None where they are too few to tell it.

    Args:
        samples: The samples, in any unit.
        q: The fraction of samples below, such as 0.9.

    Returns:
        The quantile in the samples' unit; None under 64 samples for 0.9 and under 662 for 0.99.

    Raises:
        ValueError: `q` is not between 0 and 1.

    Source: MLCommons, "MLPerf Inference Rules", early stopping.
    """
    if not 0 < q < 1:
        raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
    values = np.asarray(samples, dtype=float)
    unseen = stats.binom.cdf(1, values.size, min(q, 1 - q))
    return None if unseen > 1 - TAIL_CONFIDENCE else float(np.quantile(values, q))


def compare_times(base: ArrayLike, other: ArrayLike, floor: float = 0.0, level: float = 0.95) -> Comparison:
    """Say whether `other` is faster than `base`, from times taken in pairs.

    Everything is done on the log-ratios r = log(base/other), and the margin is m = log(1 + max(0.5 %, floor))
    to either side of 0: so swapping the two programs turns the verdict round and changes nothing else. With
    I the interval of r's median and p of the signed-rank test,

        FASTER     p < 0.002 and I above  m
        SLOWER     p < 0.002 and I below -m
        SAME       I within [-m, m]
        AMBIGUOUS  anything else

    Args:
        base: (n,) seconds of the reference.
        other: (n,) seconds of what is compared with it, each measured next to its namesake in `base`.
        floor: The session's noise floor, a relative difference; see `floor_of`.
        level: The interval's confidence level.

    Returns:
        The speedup base/other (over 1 is faster) with its interval, p, and the verdict.

    Raises:
        ValueError: The two differ in length, are fewer than ten, or hold a time that is not positive.

    Source: Wilcoxon 1945, "Individual comparisons by ranking methods"; the interval is `median_interval`.
    """
    times = np.asarray(base, dtype=float), np.asarray(other, dtype=float)
    if times[0].ndim != 1 or times[0].shape != times[1].shape or times[0].size < MIN_ROUNDS:
        shapes = f"{times[0].shape} and {times[1].shape}"
        raise ValueError(f"a comparison needs at least {MIN_ROUNDS} pairs of times, not {shapes}")
    if not all(np.all(np.isfinite(t) & (t > 0)) for t in times):
        raise ValueError("times must be positive and finite")
    # Not log(base/other): this one changes its sign exactly when the two are swapped.
    ratios = np.round(np.log(times[0]) - np.log(times[1]), TIE_DECIMALS)
    p = float(stats.wilcoxon(ratios).pvalue) if np.any(ratios) else 1.0
    log = median_interval(ratios, level)
    speedup = Interval(math.exp(log.estimate), math.exp(log.lo), math.exp(log.hi))
    return Comparison(speedup, p, _verdict(log, p, math.log1p(max(MIN_MARGIN, floor))))


def floor_of(comparisons: Sequence[Comparison]) -> float:
    """The noise floor of comparisons of a program with itself: a relative difference, 0 where there are none.

    It is the farthest from 1 that any of their intervals reaches, as a factor either way.
    """
    ends = [end for c in comparisons for end in (c.speedup.lo, c.speedup.hi)]
    return math.expm1(max((abs(math.log(end)) for end in ends), default=0.0))


def pareto(cost: ArrayLike, value: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other point beats: none costs no more and is worth no less, one of the two strictly.

    Points that coincide are all kept; a point with a NaN is neither kept nor beats another.

    Args:
        cost: (n,) what is to be small, in any unit.
        value: (n,) what is to be large, in any unit.

    Returns:
        (n,) booleans.

    Raises:
        ValueError: The two differ in length.
    """
    costs, values = np.asarray(cost, dtype=float), np.asarray(value, dtype=float)
    if costs.ndim != 1 or costs.shape != values.shape:
        raise ValueError(f"points need one cost and one value each, not {costs.shape} and {values.shape}")
    no_worse = (costs[:, None] <= costs) & (values[:, None] >= values)
    better = (costs[:, None] < costs) | (values[:, None] > values)
    known = ~(np.isnan(costs) | np.isnan(values))
    return np.asarray(known & ~np.any(no_worse & better, axis=0), dtype=np.bool_)


def _verdict(log: Interval, p: float, margin: float) -> Verdict:
    if p < SIGNIFICANCE and log.lo > margin:
        return Verdict.FASTER
    if p < SIGNIFICANCE and log.hi < -margin:
        return Verdict.SLOWER
    return Verdict.SAME if -margin <= log.lo and log.hi <= margin else Verdict.AMBIGUOUS


def _tango_score(gained: int, lost: int, n: int, delta: float) -> float:
    """Standard errors by which the observed difference exceeds `delta` (Tango 1998, equations 24 to 26)."""
    a = 2 * n
    b = (2 * n - gained + lost) * delta - gained - lost
    c = -lost * delta * (1 - delta)
    # P(lost) at its likeliest given delta, for the variance of the difference.
    losing = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * losing + delta * (1 - delta))
    # Where nothing flipped the variance at delta = 0 is exactly 0, and so is the numerator.
    return (gained - lost - n * delta) / math.sqrt(max(variance, np.finfo(float).tiny))
