"""Bipartite soft matching, used by ToMe and the methods derived from it (Bolya et al. 2023, arXiv 2210.09461).

Tokens are split into sources and targets. Each source is paired with its most similar target, and the r most similar of
these pairs are merged into one token each.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bipartite_matching(similarity: Tensor, source: Tensor, target: Tensor, n: int, r: int) -> Tensor:
    """Merge r sources, those most similar to their best target, into that target.

    The groups are in ToMe's order: first the tokens that are neither targets nor merged, in their original order, then
    the targets. Of equal similarities, the earlier token wins.

    Args:
        similarity: (B, S, T), of each source to each target; -inf excludes a pair as long as others are left.
        source: (S,) or (B, S) int64, positions of the sources among the n tokens.
        target: (T,) or (B, T) int64, positions of the targets, none of them a source. Other tokens are left unchanged.
        n: N, the number of tokens.
        r: How many sources to merge, at most S.

    Returns:
        (B, N) int64, the group of each token in [0, N-r), as expected by `Tokens.merge`.
    """
    batch, sources, targets = similarity.shape
    source, target = source.expand(batch, sources), target.expand(batch, targets)
    best, partner = similarity.max(dim=2)
    merged = best.argsort(dim=1, descending=True, stable=True)[:, :r]
    groups = torch.arange(n - r, device=similarity.device).expand(batch, n - r)
    target_group = groups[:, n - r - targets :]
    moved = torch.cat([target, source.gather(1, merged)], dim=1)
    group = torch.cat([target_group, target_group.gather(1, partner.gather(1, merged))], dim=1)
    unmoved = torch.ones(batch, n, dtype=torch.int64, device=similarity.device).scatter(1, moved, 0)
    return (unmoved.cumsum(dim=1) - 1).scatter(1, moved, group)
