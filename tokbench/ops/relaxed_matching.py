"""Bipartite matching with a gradient: a soft choice of r pairs (DTEM, Lee and Hong 2024, arXiv 2412.10569).

With the similarities c, l_ij = c_ij / 0.1 for the three most similar targets j of each source i, and a = 0,

    repeat r times:  q = softmax(l / temperature) over all pairs,    a ← a + q,    l_ij ← l_ij + log(1 - Σ_j q_ij)

so that a source that was chosen counts less in the next round. At last, the shares of a source whose sum is above 1 are
divided by the sum, which counts as a constant for the gradient. The constants are those of the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEIGHBOURS = 3
SCALE = 0.1


def relaxed_matching(similarity: Tensor, r: int, temperature: float) -> Tensor:
    """The shares of the sources that go to each target, which sum to at most r in each image.

    Args:
        similarity: (B, S, T).
        r: How many pairs to choose, at most S.
        temperature: Of the softmax over all pairs; towards 0, r pairs have the share 1.

    Returns:
        (B, S, T), 0 except for the three most similar targets of each source; float32 or wider.
    """
    similarity = similarity.to(torch.promote_types(similarity.dtype, torch.float32))
    best = similarity.topk(min(NEIGHBOURS, similarity.shape[2]), dim=2)
    logits, tiny = best.values / SCALE, torch.finfo(similarity.dtype).tiny
    share = torch.zeros_like(logits)
    for _ in range(r):
        chosen = (logits / temperature).flatten(1).softmax(dim=1).view_as(logits)
        share = share + chosen
        logits = logits + (1 - chosen.sum(dim=2, keepdim=True)).clamp_min(tiny).log()
    share = share / share.sum(dim=2, keepdim=True).detach().clamp_min(1)
    return torch.zeros_like(similarity).scatter(2, best.indices, share)
