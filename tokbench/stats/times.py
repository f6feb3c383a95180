"""Statistics of times: medians, percentiles, and comparisons with a verdict.

Times are in seconds; the table converts them to milliseconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from tokbench.stats.proportions import Interval

# With fewer than ten rounds the signed-rank test can never reach SIGNIFICANCE: with n pairs its smallest two-sided p is
# 2/2^n, which is 0.0039 for nine pairs and 0.00195 for ten.
MIN_ROUNDS = 10

# A table has dozens of comparisons. At 0.002, the probability of a false alarm in 50 of them is below 10 %.
SIGNIFICANCE = 0.002

# Half a percent is how much identical programs differ on a quiet machine (code alignment, clocks), and too small to
# matter for choosing a method.
MIN_MARGIN = 0.005

# Log-ratios that agree to this many decimals are ties. A clock of 1 ns resolves a second to nine decimals.
TIE_DECIMALS = 12

# A tail percentile is reported only if, with this confidence, at least two samples lie beyond it. This is the rule of
# MLPerf Inference's early stopping; it requires 64 samples for p90 and 662 for p99.
TAIL_CONFIDENCE = 0.99


class Verdict(StrEnum):
    """The conclusion of a comparison of two times."""

    FASTER = "FASTER"
    SLOWER = "SLOWER"
    SAME = "SAME"
    AMBIGUOUS = "AMBIGUOUS"


@dataclass(frozen=True)
class Comparison:
    """A comparison of two times or two speedups: their ratio with its interval, the test's p, and the verdict."""

    speedup: Interval
    p: float
    verdict: Verdict


def median_interval(samples: ArrayLike, level: float = 0.95) -> Interval:
    """The median and its distribution-free interval, whose limits are two order statistics.

    With too few samples for the level (fewer than six for 95 %), the interval extends from the smallest to the largest
    sample and covers the median less often than the level says.

    Args:
        samples: (n,) the samples, in any unit.
        level: The confidence level.

    Returns:
        The median and its interval, in the samples' unit.

    Raises:
        ValueError: There are no samples.

    Source: Conover 1999, "Practical Nonparametric Statistics", section 3.2.
    """
    values = np.sort(np.asarray(samples, dtype=float))
    if values.size == 0:
        raise ValueError("the median needs at least one sample")
    # The median is below the sample of this rank with probability under (1 - level)/2, and above the sample of the
    # same rank from the end with the same probability.
    rank = max(1, int(stats.binom.ppf((1 - level) / 2, values.size, 0.5)))
    return Interval(float(np.median(values)), float(values[rank - 1]), float(values[-rank]))


def percentile(samples: ArrayLike, q: float) -> float | None:
    """The q-quantile of the samples, or None if there are too few samples.

    Args:
        samples: The samples, in any unit.
        q: The fraction of samples below the quantile, such as 0.9.

    Returns:
        The quantile in the samples' unit; None with fewer than 64 samples for 0.9 or fewer than 662 for 0.99.

    Raises:
        ValueError: `q` is not between 0 and 1.

    Source: MLCommons, "MLPerf Inference Rules", early stopping.
    """
    if not 0 < q < 1:
        raise ValueError(f"q must be between 0 and 1, got {q}")
    values = np.asarray(samples, dtype=float)
    p_too_few = stats.binom.cdf(1, values.size, min(q, 1 - q))
    return None if p_too_few > 1 - TAIL_CONFIDENCE else float(np.quantile(values, q))


def compare_times(base: ArrayLike, other: ArrayLike, floor: float = 0.0, level: float = 0.95) -> Comparison:
    """Decide whether `other` is faster than `base`, from paired times.

    The comparison uses the log-ratios r = log(base/other) with a margin m = log(1 + max(0.5 %, floor)) on both sides
    of 0, so that swapping the two programs reverses the verdict and changes nothing else. With I the interval of r's
    median and p from the signed-rank test,

        FASTER     p < 0.002 and I above  m
        SLOWER     p < 0.002 and I below -m
        SAME       I within [-m, m]
        AMBIGUOUS  otherwise

    Args:
        base: (n,) seconds of the reference.
        other: (n,) seconds of the other program, each measured next to the entry of `base` with the same index.
        floor: The session's noise floor, a relative difference; see `floor_of`.
        level: The interval's confidence level.

    Returns:
        The speedup base/other (above 1 is faster) with its interval, p, and the verdict.

    Raises:
        ValueError: The arrays differ in length, have fewer than ten entries, or contain a time that is not positive.

    Source: Wilcoxon 1945, "Individual comparisons by ranking methods"; the interval is `median_interval`.
    """
    times = np.asarray(base, dtype=float), np.asarray(other, dtype=float)
    if times[0].ndim != 1 or times[0].shape != times[1].shape or times[0].size < MIN_ROUNDS:
        shapes = f"{times[0].shape} and {times[1].shape}"
        raise ValueError(f"a comparison needs at least {MIN_ROUNDS} pairs of times, got {shapes}")
    if not all(np.all(np.isfinite(t) & (t > 0)) for t in times):
        raise ValueError("times must be positive and finite")
    # Unlike log(base/other), this difference changes exactly its sign if the two are swapped.
    ratios = np.round(np.log(times[0]) - np.log(times[1]), TIE_DECIMALS)
    p = float(stats.wilcoxon(ratios).pvalue) if np.any(ratios) else 1.0
    return _comparison(median_interval(ratios, level), p, floor)


def compare_speedups(old: ArrayLike, new: ArrayLike, floor: float = 0.0, level: float = 0.95) -> Comparison:
    """Decide whether a speedup has changed between two stored sessions.

    A session's samples are the log-ratios log(plain/method) of adjacent measurements, so drift within the session
    already cancels; samples of different sessions are not paired. With r the shift from `old` to `new`, I its interval
    and p from the rank-sum test, the verdict follows the rule of `compare_times`.

    Differences between the sessions that do not come from the method (another memory layout, another selected kernel)
    do not show in either session's samples; the floor must include them.

    Args:
        old: (n,) log-ratios of the earlier session.
        new: (m,) log-ratios of the later session. Memory and time grow with n·m.
        floor: The larger of the two sessions' noise floors, a relative difference; see `floor_of`.
        level: The interval's confidence level.

    Returns:
        The ratio of the new speedup to the old one (above 1 is faster) with its interval, p, and the verdict.

    Raises:
        ValueError: A session has fewer than ten samples, or a sample that is not finite.

    Source: Hodges and Lehmann 1963, "Estimates of location based on rank tests"; Mann and Whitney 1947, "On a test of
    whether one of two random variables is stochastically larger than the other", inverted for the interval.
    """
    before, after = (np.round(np.asarray(ratios, dtype=float), TIE_DECIMALS) for ratios in (old, new))
    if before.ndim != 1 or after.ndim != 1 or min(before.size, after.size) < MIN_ROUNDS:
        shapes = f"{before.shape} and {after.shape}"
        raise ValueError(f"a comparison needs at least {MIN_ROUNDS} log-ratios of each session, got {shapes}")
    if not (np.all(np.isfinite(before)) and np.all(np.isfinite(after))):
        raise ValueError("log-ratios must be finite")
    shifts = np.sort((after[:, None] - before).ravel())
    # Normal approximation of the rank sum: with at least ten samples, its rank is exact or one further out.
    spread = math.sqrt(shifts.size * (before.size + after.size + 1) / 12)
    rank = max(1, math.floor((shifts.size + 1) / 2 + stats.norm.ppf((1 - level) / 2) * spread))
    log = Interval(float(np.median(shifts)), float(shifts[rank - 1]), float(shifts[-rank]))
    p = float(stats.mannwhitneyu(before, after).pvalue) if np.any(shifts) else 1.0
    return _comparison(log, p, floor)


def floor_of(comparisons: Sequence[Comparison]) -> float:
    """The noise floor: how far comparisons of a program with itself differ from 1 beyond sampling error.

    For each comparison, this is the distance between 1 and the nearer limit of its interval, in either direction, and 0
    if the interval contains 1; the floor is the largest of them. Sampling error is left out because it is already in
    the interval of each row; counting it twice would hide clear differences on a noisy machine.

    Args:
        comparisons: Comparisons of a program with itself.

    Returns:
        A relative difference.
    """
    nearest = (max(math.log(c.speedup.lo), -math.log(c.speedup.hi)) for c in comparisons)
    return math.expm1(max((max(end, 0.0) for end in nearest), default=0.0))


def _comparison(log: Interval, p: float, floor: float) -> Comparison:
    speedup = Interval(math.exp(log.estimate), math.exp(log.lo), math.exp(log.hi))
    return Comparison(speedup, p, _verdict(log, p, math.log1p(max(MIN_MARGIN, floor))))


def _verdict(log: Interval, p: float, margin: float) -> Verdict:
    if p < SIGNIFICANCE and log.lo > margin:
        return Verdict.FASTER
    if p < SIGNIFICANCE and log.hi < -margin:
        return Verdict.SLOWER
    return Verdict.SAME if -margin <= log.lo and log.hi <= margin else Verdict.AMBIGUOUS
