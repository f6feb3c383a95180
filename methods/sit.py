"""SiT: a token slimming module, one learned aggregation of N tokens into K (Zong et al. 2022, arXiv 2111.12624).

    Â = softmax(W₂ GELU(W₁ LN(x))ᵀ),    y = Â x,    W₁ C → C/2, W₂ C/2 → K, softmax over the N tokens

The normalisation before the MLP is decided here, because the residual stream's scale grows with depth. There is no
temperature in the softmax, since W₂ can absorb it. The published training also distils from the unreduced model, with a
reverse module that recovers N tokens from K; that is part of the training recipe. For `size` and `owner`, each token is
divided among the K new tokens in proportion to their weights for it.
"""

import torch
from torch import nn

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register


@register("sit")
class SiT(Downsampler):
    """Aggregate the tokens with weights predicted from each token."""

    site = "before_block"
    trained = True
    paper = Paper("Self-slimmed Vision Transformer", "ECCV", 2022, "2111.12624")

    def __init__(self) -> None:
        """Create the method, which has no parameters; `setup` creates its weights."""
        super().__init__()
        self.slimming = nn.ModuleList()

    def setup(self, geometry: Geometry) -> None:
        dim = geometry.dim
        self.slimming = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(dim),
                nn.Linear(dim, dim // 2),
                nn.GELU(),
                nn.Linear(dim // 2, count, bias=False),  # a bias would cancel in the softmax
            )
            for count in geometry.counts
        )

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        wide = torch.promote_types(tokens.x.dtype, torch.float32)
        weight = self.slimming[context.stage](tokens.patches).to(wide).mT.log_softmax(dim=2)
        share = weight.softmax(dim=1)  # of each token's size; sums to 1 over K
        return tokens.mix(weight.exp()).replace(size=(share @ tokens.size.to(wide)[..., None])[..., 0])
