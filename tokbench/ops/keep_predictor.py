"""The network that predicts which tokens to keep, of DynamicViT and the methods that follow it (arXiv 2106.02034)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokbench.tokens import Tokens

FRACTION_WEIGHT = 2.0
"""Of the loss on the kept fraction, relative to the classification loss, in the training of DynamicViT and dTPS."""


class KeepPredictor(nn.Module):
    """Predicts from a token and the mean over all tokens whether to keep it.

    From N tokens x with C channels and presence p:

        z = GELU(W LN(x)),    z_i ← [ z_i of the first C/2 channels ; Σ_j p_j z_j / Σ_j p_j of the others ]
        π_i = softmax(MLP_{C → C/2 → C/4 → 2}(z_i))

    In evaluation all tokens are present, and the mean is the plain one.
    """

    def __init__(self, dim: int) -> None:
        """Create the layers for tokens with `dim` channels."""
        super().__init__()
        self.local = dim // 2
        self.inner = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.outer = nn.Sequential(
            nn.Linear(dim, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim // 4), nn.GELU(), nn.Linear(dim // 4, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N), the probability π_i[0] that each token is kept, in float32 or wider."""
        return self._logits(x, None).softmax(dim=2, dtype=torch.promote_types(x.dtype, torch.float32))[..., 0]

    def sample(self, x: Tensor, presence: Tensor | None) -> Tensor:
        """Draw which tokens stay present, as in training: by Gumbel-softmax with torch's global generator.

        The values are 0 or 1, with the gradient of the Gumbel-softmax (straight-through). In each image, the present
        token with the highest sample always stays. In the published training an image can lose all its tokens, which
        gives 0/0 in the next mean over them.

        Args:
            x: (B, N, C).
            presence: (B, N), 0 or 1, of the tokens before; None if all are present.

        Returns:
            (B, N), float32 or wider, the decisions times the presence before.
        """
        logits = self._logits(x, presence).to(torch.promote_types(x.dtype, torch.float32))
        soft = F.gumbel_softmax(logits, dim=2)[..., 0]
        before = torch.ones_like(soft) if presence is None else presence.to(soft.dtype)
        best = soft.masked_fill(before < 0.5, -torch.inf).argmax(dim=1, keepdim=True)
        hard = (soft > 0.5).scatter(1, best, True).to(soft.dtype)
        return (hard + (soft - soft.detach())) * before

    def _logits(self, x: Tensor, presence: Tensor | None) -> Tensor:
        """(B, N, 2), before the softmax."""
        z: Tensor = self.inner(x)
        mean = z[..., self.local :]
        if presence is None:
            mean = mean.mean(dim=1, keepdim=True)
        else:
            mean = (mean * presence[..., None]).sum(dim=1, keepdim=True) / presence.sum(dim=1)[:, None, None]
        mean = mean.to(z.dtype).expand(-1, z.shape[1], -1)
        logits: Tensor = self.outer(torch.cat([z[..., : self.local], mean], dim=2))
        return logits


def kept_fraction_loss(after: Sequence[Tokens], targets: Sequence[int]) -> Tensor:
    """The loss that leads the number of present tokens to the schedule's.

        2 · mean over reductions s and images of (Σ_i p_i / N0 - K_s / N0)²

    Args:
        after: The tokens after each reduction.
        targets: K of each reduction.

    Returns:
        A scalar; the weight 2 is that of DynamicViT and dTPS.
    """
    terms = []
    for tokens, target in zip(after, targets, strict=True):
        if tokens.presence is None:  # the schedule removes nothing here
            continue
        fraction = tokens.presence.sum(dim=1) / tokens.owner.shape[1]
        terms.append((fraction - target / tokens.owner.shape[1]).square().mean())
    return FRACTION_WEIGHT * torch.stack(terms).sum() / len(targets) if terms else after[0].x.new_zeros(())
