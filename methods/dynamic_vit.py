"""DynamicViT: a small network learns which tokens to keep (Rao et al. 2021, arXiv 2106.02034).

Before a block, from the N patch tokens x of width C:

    z = GELU(W LN(x)),    z_i ← [ z_i of the first C/2 channels ; mean_j z_j of the others ]
    π_i = softmax(MLP_{C → C/2 → C/4 → 2}(z_i)),    keep the K tokens of the highest π_i[0]

All tokens present have a policy of 1, so the paper's policy-weighted mean is the plain one. The published training
keeps every token, samples the decisions from π by Gumbel-softmax and masks attention with them, and adds a loss on
the kept share and two of distillation: that is the recipe's, and comes with `tokbench finetune`. In training mode
tokens are dropped here as at inference, and the kept ones carry a factor π_i[0] / π_i[0] = 1 whose gradient reaches
the network (straight-through).
"""

import torch
from torch import Tensor, nn

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register


@register("dynamic_vit")
class DynamicViT(Downsampler):
    """Keep the tokens that a learned predictor finds worth keeping."""

    site = "before_block"
    trained = True
    paper = Paper(
        "DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification", "NeurIPS", 2021, "2106.02034"
    )

    def __init__(self) -> None:
        """No parameters; the weights come with `setup`."""
        super().__init__()
        self.predictors = nn.ModuleList()

    def setup(self, geometry: Geometry) -> None:
        self.predictors = nn.ModuleList(Predictor(geometry.dim) for _ in geometry.depths)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        keeping = self.predictors[context.stage](tokens.patches)
        kept = keeping.argsort(dim=1, descending=True, stable=True)[:, :keep].sort(dim=1).values
        result = tokens.select(kept)
        if self.training:
            probability = keeping.gather(1, kept)
            factor = 1 + probability - probability.detach()
            result = result.replace(patches=result.patches * factor[..., None].to(tokens.x.dtype))
        return result


class Predictor(nn.Module):
    """(B, N, C) -> (B, N), the probability that each token is kept."""

    def __init__(self, dim: int) -> None:
        """Make the layers for tokens of width C."""
        super().__init__()
        self.local = dim // 2
        self.inner = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.outer = nn.Sequential(
            nn.Linear(dim, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim // 4), nn.GELU(), nn.Linear(dim // 4, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.inner(x)
        everywhere = z[..., self.local :].mean(dim=1, keepdim=True).expand(-1, z.shape[1], -1)
        policy: Tensor = self.outer(torch.cat([z[..., : self.local], everywhere], dim=2))
        return policy.softmax(dim=2, dtype=torch.promote_types(x.dtype, torch.float32))[..., 0]
