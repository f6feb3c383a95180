"""Ways to spread a reduction over the blocks that are known before any search: a search begins with them."""

from __future__ import annotations

import math
from itertools import pairwise

from tokbench.errors import UserError
from tokbench.measure.equal_cost_counts import Backbone
from tokbench.schedule import DEFAULT_DEPTHS, Schedule, planned_counts
from tokbench.schedule_text import takes_keep

Direction = tuple[float, ...]
"""For each block its share of the reduction, the largest 1; see `equal_cost_counts`."""

EACH = 0.7  # the keep of a published schedule that takes one: its shape is the same for all keeps
NOTHING = -0.5  # the share of a block without a reduction: in the middle of the shares that mean this


def known_shapes(backbone: Backbone, target: float) -> list[Direction]:
    """The directions that a search tries first, without repetitions.

    They are a reduction by the same factor at depths 3, 6 and 9, in every block, at a quarter of the depth, in the
    middle, in every block of the first and of the second half; the same number of tokens from every block; and the
    method's published schedule, where it fits the model.

    Args:
        backbone: The model and the method.
        target: The cost, as a fraction of the plain model's MACs.
    """
    blocks = range(backbone.first, backbone.blocks)
    stages = [depth for depth in DEFAULT_DEPTHS if depth in blocks] or [backbone.blocks // 2]
    half = (backbone.first + backbone.blocks) // 2
    equal = [stages, blocks, [backbone.blocks // 4], [backbone.blocks // 2], range(backbone.first, half)]
    equal.append(range(half, backbone.blocks))
    shapes = [_equal(backbone, [depth for depth in depths if depth in blocks]) for depths in equal]
    shapes += [_same_number(backbone, target), _published(backbone)]
    return list(dict.fromkeys(shape for shape in shapes if max(shape[backbone.first :]) > 0))


def _equal(backbone: Backbone, depths: range | list[int]) -> Direction:
    return tuple(1.0 if block in depths else NOTHING for block in range(backbone.blocks))


def _same_number(backbone: Backbone, target: float) -> Direction:
    """The same number of tokens from every block, as many as lead nearest to the target."""
    n, first = backbone.patches, backbone.first

    def counts(r: int) -> tuple[int, ...]:
        return tuple(max(1, n - r * max(0, block + 1 - first)) for block in range(backbone.blocks))

    r = min(range(1, n + 1), key=lambda r: abs(backbone.fraction(counts(r)) - target))
    return _direction(backbone, counts(r))


def _published(backbone: Backbone) -> Direction:
    """The method's own schedule; no reduction where it has none, or one for another model."""
    text = backbone.method.schedule
    if text is None:
        return _equal(backbone, [])
    grid = backbone.plain.vit.patch_embed.grid_size
    try:
        schedule = Schedule.parse(text, EACH if takes_keep(text) else None)
        depths = schedule.depths(backbone.blocks)
    except UserError:  # it is for a model with more blocks, or fewer
        return _equal(backbone, [])
    left = dict(zip(depths, planned_counts(schedule, backbone.method, backbone.blocks, grid), strict=True))
    counts, n = [], backbone.patches
    for block in range(backbone.blocks):
        n = min(n, left.get(block, n))
        counts.append(n)
    return _direction(backbone, tuple(counts))


def _direction(backbone: Backbone, counts: tuple[int, ...]) -> Direction:
    falls = [math.log(n / k) for n, k in pairwise((backbone.patches, *counts))]
    largest = max(*falls, 1e-9)
    return tuple(fall / largest if fall > 0 else NOTHING for fall in falls)
