"""Pure statistics: medians and percentiles, comparisons of times with a verdict, the Pareto front.

Times are seconds; whoever fills a table turns them into milliseconds. What is counted right or wrong is the matter
of `tokbench.stats.proportions`, whose names can be had from here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tokbench.stats.proportions import Interval

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


class Verdict(StrEnum):
    """What a comparison of two times supports saying."""

    FASTER = "FASTER"
    SLOWER = "SLOWER"
    SAME = "SAME"
    AMBIGUOUS = "AMBIGUOUS"


@dataclass(frozen=True)
class Comparison:
    """A comparison of two times or of two speedups: the one over the other (a ratio), the test's p and the verdict."""

    speedup: Interval
    p: float
    verdict: Verdict


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
    return _judged(median_interval(ratios, level), p, floor)


def compare_speedups(old: ArrayLike, new: ArrayLike, floor: float = 0.0, level: float = 0.95) -> Comparison:
    """Say whether a speedup has changed between two stored sessions.

    A session's samples are its log-ratios log(plain/method), each of two times that were taken in turn, so that what
    drifts has left them already; between the sessions nothing is paired. With r the shift from `old` to `new`, I its
    interval and p of the rank-sum test, the verdict is by the rule of `compare_times`.

    What sets two sessions apart besides the method (another placement in memory, another kernel chosen) is not in the
    samples of either: it must come in with the floor.

    Args:
        old: (n,) log-ratios of the earlier session.
        new: (m,) log-ratios of the later one. Memory and time grow with n·m.
        floor: The larger of the two sessions' noise floors, a relative difference; see `floor_of`.
        level: The interval's confidence level.

    Returns:
        The new speedup over the old one (over 1 is faster) with its interval, p, and the verdict.

    Raises:
        ValueError: One of the two has under ten samples, or a sample that is not finite.

    Source: Hodges and Lehmann 1963, "Estimates of location based on rank tests"; Mann and Whitney 1947, "On a test of
    whether one of two random variables is stochastically larger than the other", inverted for the interval.
    """
    before, after = (np.round(np.asarray(ratios, dtype=float), TIE_DECIMALS) for ratios in (old, new))
    if before.ndim != 1 or after.ndim != 1 or min(before.size, after.size) < MIN_ROUNDS:
        shapes = f"{before.shape} and {after.shape}"
        raise ValueError(f"a comparison needs at least {MIN_ROUNDS} log-ratios of each session, not {shapes}")
    if not (np.all(np.isfinite(before)) and np.all(np.isfinite(after))):
        raise ValueError("log-ratios must be finite")
    shifts = np.sort((after[:, None] - before).ravel())
    # The normal approximation of the rank sum: from ten samples on its rank is the exact one or one further out.
    spread = math.sqrt(shifts.size * (before.size + after.size + 1) / 12)
    rank = max(1, math.floor((shifts.size + 1) / 2 + stats.norm.ppf((1 - level) / 2) * spread))
    log = Interval(float(np.median(shifts)), float(shifts[rank - 1]), float(shifts[-rank]))
    p = float(stats.mannwhitneyu(before, after).pvalue) if np.any(shifts) else 1.0
    return _judged(log, p, floor)


def floor_of(comparisons: Sequence[Comparison]) -> float:
    """The noise floor: how far comparisons of a program with itself lie from 1 for sure, 0 where none does.

    It is the farthest near end of their intervals, as a factor either way, and so what sampling does not explain. How
    far a median may be off by chance is in the interval of the row that the floor is held against; were it in the
    floor too, it would count twice, and on a noisy machine hide differences that are plain to see.

    Returns:
        A relative difference.
    """
    nearest = (max(math.log(c.speedup.lo), -math.log(c.speedup.hi)) for c in comparisons)
    return math.expm1(max((max(end, 0.0) for end in nearest), default=0.0))


def pareto_front(cost: ArrayLike, better: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other point beats: none costs no more and is surely better.

    A point that costs NaN is neither kept nor beats another.

    Args:
        cost: (n,) what is to be small, in any unit.
        better: (n, n) booleans: is the point of this row surely better than the point of this column?

    Returns:
        (n,) booleans.

    Raises:
        ValueError: The shapes do not go together.
    """
    costs, surely = np.asarray(cost, dtype=float), np.asarray(better, dtype=bool)
    if costs.ndim != 1 or surely.shape != (costs.size, costs.size):
        raise ValueError(f"n points need n costs and n x n comparisons, not {costs.shape} and {surely.shape}")
    beats = (costs[:, None] <= costs) & surely
    return np.asarray(~np.isnan(costs) & ~np.any(beats, axis=0), dtype=np.bool_)


def _judged(log: Interval, p: float, floor: float) -> Comparison:
    speedup = Interval(math.exp(log.estimate), math.exp(log.lo), math.exp(log.hi))
    return Comparison(speedup, p, _verdict(log, p, math.log1p(max(MIN_MARGIN, floor))))


def _verdict(log: Interval, p: float, margin: float) -> Verdict:
    if p < SIGNIFICANCE and log.lo > margin:
        return Verdict.FASTER
    if p < SIGNIFICANCE and log.hi < -margin:
        return Verdict.SLOWER
    return Verdict.SAME if -margin <= log.lo and log.hi <= margin else Verdict.AMBIGUOUS
