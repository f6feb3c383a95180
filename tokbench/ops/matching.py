"""Bipartite soft matching, the step that ToMe and its descendants share (Bolya et al. 2023, arXiv 2210.09461).

Tokens are split into sources and targets; every source finds its most similar target, and the r most similar of these
pairs become one token each.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bipartite_matching(similarity: Tensor, source: Tensor, target: Tensor, n: int, r: int) -> Tensor:
    """Merge the r sources that are most similar to a target into it.

    What results stands in ToMe's order: first the tokens that are neither target nor merged, in their order, then the
    targets. Ties go to the earlier token.

    Args:
        similarity: (B, S, T), of each source to each target; -inf forbids a pair as long as others are left.
        source: (S,) or (B, S) int64, positions of the sources among the n tokens.
        target: (T,) or (B, T) int64, positions of the targets; none is a source. The rest are left as they are.
        n: N, the number of tokens.
        r: How many to merge, at most S.

    Returns:
        (B, N) int64, the group of each token in [0, N-r), as `Tokens.merge` takes it.
    """
    batch, sources, targets = similarity.shape
    source, target = source.expand(batch, sources), target.expand(batch, targets)
    best, partner = similarity.max(dim=2)
    merged = best.argsort(dim=1, descending=True, stable=True)[:, :r]
    mine, theirs = source.gather(1, merged), partner.gather(1, merged)
    place = torch.arange(targets, device=similarity.device).expand(batch, targets) + (n - r - targets)
    leaving = torch.zeros(batch, n, dtype=torch.int64, device=similarity.device)
    leaving = leaving.scatter(1, target, 1).scatter(1, mine, 1)
    owner = (1 - leaving).cumsum(dim=1) - 1
    return owner.scatter(1, target, place).scatter(1, mine, place.gather(1, theirs))
