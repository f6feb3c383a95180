"""DynamicViT: a small network predicts which tokens to keep (Rao et al. 2021, arXiv 2106.02034).

Before a block, from the N patch tokens x with C channels:

    z = GELU(W LN(x)),    z_i ← [ z_i of the first C/2 channels ; mean_j z_j of the others ]
    π_i = softmax(MLP_{C → C/2 → C/4 → 2}(z_i)),    keep the K tokens with the highest π_i[0]

All present tokens have policy 1, so the paper's policy-weighted mean is the plain mean. The published training keeps
every token, samples decisions from π by Gumbel-softmax, masks attention with them, and adds a loss on the kept fraction
and two distillation losses; that is part of the recipe of `tokbench finetune`. Here tokens are dropped in training mode
as at inference, and the kept tokens have a factor π_i[0] / π_i[0] = 1 whose gradient reaches the network
(straight-through).
"""

import torch
from torch import Tensor, nn

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register


@register("dynamic_vit")
class DynamicViT(Downsampler):
    """Keep the tokens with the highest predicted probability of being kept."""

    site = "before_block"
    trained = True
    paper = Paper(
        "DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification", "NeurIPS", 2021, "2106.02034"
    )

    def __init__(self) -> None:
        """Create the method, which has no parameters; `setup` creates its weights."""
        super().__init__()
        self.predictors = nn.ModuleList()

    def setup(self, geometry: Geometry) -> None:
        self.predictors = nn.ModuleList(Predictor(geometry.dim) for _ in geometry.depths)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        probability = self.predictors[context.stage](tokens.patches)
        kept = probability.argsort(dim=1, descending=True, stable=True)[:, :keep].sort(dim=1).values
        result = tokens.select(kept)
        if self.training:
            kept_probability = probability.gather(1, kept)
            factor = 1 + kept_probability - kept_probability.detach()
            result = result.replace(patches=result.patches * factor[..., None].to(tokens.x.dtype))
        return result


class Predictor(nn.Module):
    """(B, N, C) -> (B, N), the probability that each token is kept."""

    def __init__(self, dim: int) -> None:
        """Create the layers for tokens with `dim` channels."""
        super().__init__()
        self.local = dim // 2
        self.inner = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.outer = nn.Sequential(
            nn.Linear(dim, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim // 4), nn.GELU(), nn.Linear(dim // 4, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.inner(x)
        mean = z[..., self.local :].mean(dim=1, keepdim=True).expand(-1, z.shape[1], -1)
        policy: Tensor = self.outer(torch.cat([z[..., : self.local], mean], dim=2))
        return policy.softmax(dim=2, dtype=torch.promote_types(x.dtype, torch.float32))[..., 0]
