"""Attention to tokens that are present only in part, as methods train with (DynamicViT, arXiv 2106.02034, section 3.2).

From the logits l and the presence p of the keys, the attention of query i is

    a_ij = G_ij exp(l_ij) / Σ_k G_ik exp(l_ik),    G_ij = p_j, but G_ii = 1

so that an absent token changes no other token, and still has a value of its own that later blocks can read. Not adding
log p to the logits keeps the gradient where p = 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench.tokens import Tokens

LIMIT = 20.0
"""Of the exponents: without it, the gradient of an absent key with a far larger logit than all others is infinite."""


def key_presence(tokens: Tokens) -> Tensor | None:
    """The presence of each key, (B, 1, 1, P+N), 1 for prefix tokens; None if all tokens are simply present."""
    if tokens.presence is None:
        return None
    return F.pad(tokens.presence, (tokens.n_prefix, 0), value=1.0)[:, None, None]


def seen_by_itself(presence: Tensor) -> Tensor:
    """G, (B, 1, P+N, P+N), from the presence of each key (B, 1, 1, P+N)."""
    diagonal = torch.eye(presence.shape[3], dtype=torch.bool, device=presence.device)
    return torch.where(diagonal, 1.0, presence)


def present_softmax(logits: Tensor, presence: Tensor) -> Tensor:
    """The softmax over the keys, each of which counts with its presence.

    A key of presence below exp(-20) counts for less than that if it has by far the largest logit.

    Args:
        logits: (B, H, queries, keys).
        presence: (B, 1, 1 or queries, keys) in [0, 1]; for each query, not all are 0.

    Returns:
        (B, H, queries, keys), float32 or wider.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    logits, presence = logits.to(wide), presence.to(wide)
    with torch.no_grad():  # shifting all logits changes nothing but the range of the exponentials
        largest = (logits + presence.log()).amax(dim=-1, keepdim=True)
    weight = presence * (logits - largest).clamp(max=LIMIT).exp()
    return weight / weight.sum(dim=-1, keepdim=True)
