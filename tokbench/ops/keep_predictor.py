"""The network that predicts which tokens to keep, of DynamicViT and the methods that follow it (arXiv 2106.02034)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KeepPredictor(nn.Module):
    """Predicts from a token and the mean over all tokens whether to keep it.

    From N tokens x with C channels:

        z = GELU(W LN(x)),    z_i ← [ z_i of the first C/2 channels ; mean_j z_j of the others ]
        π_i = softmax(MLP_{C → C/2 → C/4 → 2}(z_i))
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
        z: Tensor = self.inner(x)
        mean = z[..., self.local :].mean(dim=1, keepdim=True).expand(-1, z.shape[1], -1)
        policy: Tensor = self.outer(torch.cat([z[..., : self.local], mean], dim=2))
        return policy.softmax(dim=2, dtype=torch.promote_types(x.dtype, torch.float32))[..., 0]
