"""How many patch tokens public code keeps, from its rates."""

from __future__ import annotations

import math
from collections.abc import Sequence


def explicit(counts: Sequence[int], at: Sequence[int]) -> str:
    """The schedule that leaves these counts at these depths, as --schedule takes it."""
    return f"explicit(counts={'-'.join(map(str, counts))},at={'-'.join(map(str, at))})"


def powers(patches: int, rate: float, stages: int) -> tuple[int, ...]:
    """int(N r^s) of all patches at reduction s = 1, 2, ...: Haurum et al. 2023, and DynamicViT."""
    return tuple(int(patches * rate ** (stage + 1)) for stage in range(stages))


def with_fused_token(patches: int, rate: float, stages: int, fused: bool) -> tuple[int, ...]:
    """ceil(r n) of the n tokens that are there, one of which may be the fused token of the reduction before: EViT."""
    counts: list[int] = []
    present = patches
    for _ in range(stages):
        kept = math.ceil(rate * present)
        counts.append(kept)
        present = kept + fused if kept < present else present
    return tuple(counts)


def by_matching(patches: int, planned: tuple[int, ...]) -> tuple[int, ...]:
    """What is left of planned counts if no matching removes more than half of the tokens: ToMe in TokenReduction.

    Each matching removes the difference of two planned counts, whatever the matching before it has left.
    """
    counts: list[int] = []
    present = patches
    for before, after in zip((patches, *planned), planned, strict=False):
        present -= min(before - after, present // 2)
        counts.append(present)
    return tuple(counts)
