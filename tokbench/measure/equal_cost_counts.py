"""Token counts per block that cost a given fraction of the plain model's compute.

A direction says how a reduction is spread over the blocks: for each block its share of the logarithm of the reduction,
where a share that is not positive means no reduction in that block. Its length is found by bisection, so that every
direction leads to counts of the same cost. The backbone's cost is computed from the counts (`ledger.closed_form`); what
the method adds is known from counting, once or a few times for each direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tokbench.downsampler import Downsampler
from tokbench.measure.budget import CLOSE_ENOUGH, OutOfReachError
from tokbench.measure.ledger import Ledger, closed_form
from tokbench.schedule import Explicit, planned_counts
from tokbench.stats.pareto import EQUAL_COST
from tokbench.vit.backbone import DownsampledViT

Counts = tuple[int, ...]
"""The patch tokens to leave in each block, in order; never more than in the block before."""

STEPS = 40  # of a bisection, at most
LONGEST = 2.0**20  # a direction's largest share is 1, and that block then keeps one token
COUNTED = 8  # times at most that the MACs are counted for a direction; mostly once or twice
FLATTEST = 0.1  # cost that is expected to come from planning one more


@dataclass(frozen=True, eq=False)
class Backbone:
    """What the backbone costs with a method, from the counts alone.

    Attributes:
        plain: The model without the method.
        method: The method.
        site: Where in a block it acts.
    """

    plain: DownsampledViT
    method: Downsampler
    site: str

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return len(self.plain.vit.blocks)

    @property
    def patches(self) -> int:
        """The patch tokens of an image."""
        return int(self.plain.vit.patch_embed.num_patches)

    @property
    def first(self) -> int:
        """The first block that the method can act in."""
        return int(self.site == "before_block" and bool(self.method.needs))

    def schedule(self, counts: Counts) -> Explicit | None:
        """The schedule with these counts, in the blocks where the method removes something; None where in none.

        Where a method cannot leave as few tokens as it is asked for, it is asked for those that it leaves.
        """
        falls = tuple(b for b, (n, k) in enumerate(zip((self.patches, *counts), counts, strict=False)) if k < n)
        if not falls:
            return None
        left = self._left(Explicit(None, tuple(counts[b] for b in falls), falls))
        at = tuple(b for b, n, k in zip(falls, (self.patches, *left), left, strict=False) if k < n)
        if not at:
            return None
        asked = Explicit(None, tuple(counts[b] for b in at), at)
        left = self._left(asked)
        possible = Explicit(None, left, at)
        return possible if not self.method.adaptive and self._left(possible) == left else asked

    def fraction(self, counts: Counts) -> float:
        """The backbone's MACs with these counts, as a fraction of the plain model's."""
        schedule = self.schedule(counts)
        if schedule is None:
            return 1.0
        left = dict(zip(schedule.at or (), self._left(schedule), strict=True))
        entering, leaving = [], []
        n = self.patches
        for block in range(self.blocks):
            entering.append(n)
            n = left.get(block, n)
            leaving.append(n)
        return self._macs(entering, leaving) / self._all

    def _left(self, schedule: Explicit) -> Counts:
        return planned_counts(schedule, self.method, self.blocks, self.plain.vit.patch_embed.grid_size)

    @cached_property
    def _all(self) -> int:
        every = [self.patches] * self.blocks
        return self._macs(every, every)

    def _macs(self, entering: Sequence[int], leaving: Sequence[int]) -> int:
        prefix = self.plain.vit.num_prefix_tokens
        attention = leaving if self.site == "before_block" else entering
        mlp = entering if self.site == "after_block" else leaving
        present = [tuple(n + prefix for n in counts) for counts in (attention, mlp)]
        return closed_form(self.plain, Ledger(present[0], present[1], tuple(leaving), ()))


@dataclass(frozen=True)
class Solved:
    """A schedule that costs what it should.

    Attributes:
        schedule: The counts.
        fraction: Its MACs as counted, as a fraction of the plain model's.
        extra: What of that the backbone's counts do not explain: the method's own, as such a fraction.
    """

    schedule: Explicit
    fraction: float
    extra: float


def solve(
    direction: Sequence[float],
    target: float,
    backbone: Backbone,
    counted: Callable[[Explicit], float],
    extra: float = 0.0,
) -> Solved:
    """Scale a direction to a cost.

    Args:
        direction: A share for each block; those that are not positive stand for no reduction.
        target: The cost, as a fraction of the plain model's MACs, between 0 and 1.
        backbone: The model and the method.
        counted: The cost of a schedule, the method's own included; called at most `COUNTED` times.
        extra: What the method's own is expected to cost.

    Raises:
        OutOfReachError: The cost cannot be met within 1 % in this direction.
    """
    seen: list[Solved] = []
    low, high = 0.0, 1.0
    aim = min(target - extra, (target + 1) / 2)  # what is planned for the backbone alone
    for _ in range(COUNTED):
        counts = nearest(direction, aim, backbone)
        schedule = backbone.schedule(counts)
        if schedule is None or any(schedule == one.schedule for one in seen):
            break
        fraction, planned = counted(schedule), backbone.fraction(counts)
        seen.append(Solved(schedule, fraction, fraction - planned))
        if abs(fraction - target) <= CLOSE_ENOUGH * target:
            break
        low, high = (low, planned) if fraction > target else (planned, high)
        # An adaptive method may remove more than it must, and of a higher aim only a part arrives.
        aim = planned + (target - fraction) / _slope(seen)
        if not low < aim < high:
            aim = (low + high) / 2
    best = min(seen, key=lambda one: abs(one.fraction - target), default=None)
    if best is None or abs(best.fraction - target) > EQUAL_COST * target:
        found = "nothing is removed" if best is None else f"the nearest has {best.fraction:.4g}"
        raise OutOfReachError(f"no schedule of this shape has {target:g} of the MACs: {found}")
    return best


def _slope(seen: Sequence[Solved]) -> float:
    """By how much the cost has changed with the backbone's planned one in the last two."""
    if len(seen) < 2:
        return 1.0
    before, last = seen[-2:]
    planned = (last.fraction - last.extra) - (before.fraction - before.extra)
    return min(max((last.fraction - before.fraction) / planned, FLATTEST), 1.0) if planned else 1.0


def nearest(direction: Sequence[float], target: float, backbone: Backbone) -> Counts:
    """The counts along a direction whose backbone costs nearest to a target.

    Args:
        direction: A share for each block.
        target: As a fraction of the plain model's MACs.
        backbone: The model and the method.
    """
    largest = max(direction[backbone.first :])
    if largest <= 0:
        return (backbone.patches,) * backbone.blocks
    shares = [max(0.0, share) / largest if b >= backbone.first else 0.0 for b, share in enumerate(direction)]

    def along(length: float) -> Counts:
        total, counts = 0.0, []
        for share in shares:
            total += share * length
            counts.append(max(1, round(backbone.patches * math.exp(-total))))
        return tuple(counts)

    short, long = 0.0, 1.0
    while backbone.fraction(along(long)) > target and long < LONGEST:
        long *= 2
    for _ in range(STEPS):
        if all(n - k <= 1 for n, k in zip(along(short), along(long), strict=True)):
            break
        middle = (short + long) / 2
        short, long = (middle, long) if backbone.fraction(along(middle)) > target else (short, middle)
    more, fewer = along(short), along(long)
    # Where several counts fall at the same length, those of the last reductions may fall alone.
    starts = [block for block, share in enumerate(shares) if share]
    between = [more, *(more[:block] + fewer[block:] for block in starts)]
    return min(between, key=lambda counts: abs(backbone.fraction(counts) - target))
