"""The rules that turn an old and a new measurement of a row into findings.

Exact values are compared exactly. Noisy ones get a verdict, and only count as worse if they are surely worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tokbench.check.finding import Finding, Outcome
from tokbench.rows import RowId
from tokbench.stats.proportions import Flips, mcnemar, tango
from tokbench.stats.times import MIN_MARGIN, Comparison, Verdict, compare_speedups

Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Counts:
    """The counts for one image.

    Attributes:
        tokens: The patch tokens leaving each block, space-separated.
        gmacs: All multiply-accumulates, in billions.
        gmacs_method: The part that the method itself needs.
    """

    tokens: str
    gmacs: float
    gmacs_method: float


def judge_counts(row: RowId, old: Counts, new: Counts, allowed: float) -> Iterator[Finding]:
    """Compare counts exactly: more compute is worse, and so are other token counts that save no compute.

    Args:
        row: The row.
        old: The old counts.
        new: The new counts.
        allowed: The growth of gmacs that is allowed, in percent.
    """
    row = row.without("seed", "batch_size", "mode")
    grown = 100 * (new.gmacs / old.gmacs - 1)
    if new.gmacs != old.gmacs:
        outcome = Outcome.IMPROVED if grown < 0 else Outcome.MOVED if grown <= allowed else Outcome.REGRESSED
        yield Finding(outcome, "gmacs", f"{grown:+.2g} %", row, old.gmacs, new.gmacs)
    if new.tokens != old.tokens:
        outcome = Outcome.MOVED if new.gmacs < old.gmacs else Outcome.REGRESSED
        block, before, after = _first_difference(old.tokens, new.tokens)
        yield Finding(outcome, "tokens_per_block", f"patch tokens after block {block}", row, before, after)
    if new.gmacs_method != old.gmacs_method:
        note = "the method's part of gmacs"
        yield Finding(Outcome.MOVED, "gmacs_method", note, row, old.gmacs_method, new.gmacs_method)


def judge_answers_exactly(row: RowId, old: Right, new: Right) -> Iterator[Finding]:
    """Compare answers image by image: any net loss of top-1 is worse, however small.

    Args:
        row: The row.
        old: (n,) booleans, whether each image was classified correctly before.
        new: (n,) the same now, for the same images in the same order.
    """
    flips = mcnemar(old, new)
    net = flips.gained - flips.lost
    if flips.gained or flips.lost:
        outcome = Outcome.REGRESSED if net < 0 else Outcome.IMPROVED if net > 0 else Outcome.MOVED
        yield _top1_finding(row, outcome, old, new, flips)


def judge_answers(row: RowId, old: Right, new: Right, allowed: float) -> Iterator[Finding]:
    """Compare answers of different machines by a paired interval (Tango's, 95 %) of the difference in top-1.

    Args:
        row: The row.
        old: (n,) booleans, whether each image was classified correctly before.
        new: (n,) the same now, for the same images in the same order.
        allowed: The loss of top-1 that is allowed, in points.
    """
    flips = mcnemar(old, new)
    if not (flips.gained or flips.lost):
        return
    change = tango(flips.gained, flips.lost, len(old))
    lo, hi = 100 * change.lo, 100 * change.hi
    if hi < -allowed:
        outcome = Outcome.REGRESSED
    elif lo < -allowed:
        outcome = Outcome.AMBIGUOUS
    else:
        outcome = Outcome.IMPROVED if lo > 0 else Outcome.MOVED
    finding = _top1_finding(row, outcome, old, new, flips)
    yield replace(finding, note=f"{finding.note}, 95 % [{lo:+.2f}, {hi:+.2f}]")


def judge_speedup(row: RowId, old: NDArray[np.float64], new: NDArray[np.float64], floor: float) -> Iterator[Finding]:
    """Compare the speedups over the plain model of two sessions.

    Args:
        row: The row.
        old: (rounds,) log-ratios of the plain model's time to the row's, before.
        new: (rounds,) the same now.
        floor: The difference to expect between sessions on one machine, as a fraction.
    """
    change = compare_speedups(old, new, floor)
    before, after = (math.exp(float(np.median(ratios))) for ratios in (old, new))
    yield from _time_finding(row, "speedup", change, floor, floor, before, after)


def judge_times(
    row: RowId, change: Comparison, floor: float, allowed: float, old_s: float, new_s: float
) -> Iterator[Finding]:
    """Compare the times of two versions that were measured in turn.

    Args:
        row: The row.
        change: The old version's time divided by the new one's.
        floor: The noise floor, as a fraction.
        allowed: The slowdown, as a fraction, that may be uncertain; a certain slowdown is worse, however small.
        old_s: The old version's median, in seconds per batch.
        new_s: The new version's median, in seconds per batch.
    """
    yield from _time_finding(row, "latency_ms", change, floor, allowed, 1e3 * old_s, 1e3 * new_s)


def _time_finding(
    row: RowId, column: str, change: Comparison, floor: float, allowed: float, before: float, after: float
) -> Iterator[Finding]:
    """Slower is worse. An unclear verdict is ambiguous if the estimate is a larger slowdown than allowed."""
    margin = max(MIN_MARGIN, floor)
    match change.verdict:
        case Verdict.SLOWER:
            outcome = Outcome.REGRESSED
        case Verdict.FASTER:
            outcome = Outcome.IMPROVED
        case Verdict.AMBIGUOUS if change.speedup.estimate < 1 / (1 + max(margin, allowed)):
            outcome = Outcome.AMBIGUOUS
        case _:
            return
    estimate, lo, hi = (
        f"{100 * (ratio - 1):+.1f}" for ratio in (change.speedup.estimate, change.speedup.lo, change.speedup.hi)
    )
    note = f"{estimate} % speed, 95 % [{lo}, {hi}], margin {100 * margin:.1f} %"
    yield Finding(outcome, column, note, row.without("seed"), before, after)


def _top1_finding(row: RowId, outcome: Outcome, old: Right, new: Right, flips: Flips) -> Finding:
    before, after = (100 * float(np.mean(right)) for right in (old, new))
    note = f"{after - before:+.2f} points: {flips.lost} lost, {flips.gained} gained of {len(old):,} images"
    return Finding(outcome, "top1", note, row.without("batch_size", "mode"), before, after)


def _first_difference(old: str, new: str) -> tuple[int, str, str]:
    """The first block after which the counts differ, and the two counts."""
    before, after = old.split(), new.split()
    pairs = enumerate(zip(before, after, strict=False))
    return next((block, a, b) for block, (a, b) in pairs if a != b)
