"""SiT: a token slimming module, one learned aggregation of N tokens into K (Zong et al. 2022, arXiv 2111.12624).

    Â = softmax(W₂ GELU(W₁ LN(x))ᵀ),    y = Â x,    W₁ C → C/2, W₂ C/2 → K, softmax over the N tokens

The normalisation ahead of the MLP is decided here, since the residual stream's scale grows with depth; a temperature
of the softmax is left to W₂, which can take up any. The published training also distils from the unreduced model
through a reverse module that recovers N tokens from K: that is the recipe's. A new token is in the accounts for the
patches of each token in proportion to its weight among the K.
"""

import torch
from torch import nn

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register


@register("sit")
class SiT(Downsampler):
    """Aggregate the tokens by weights that each of them predicts."""

    site = "before_block"
    trained = True
    paper = Paper("Self-slimmed Vision Transformer", "ECCV", 2022, "2111.12624")

    def __init__(self) -> None:
        """No parameters; the weights come with `setup`."""
        super().__init__()
        self.slimming = nn.ModuleList()

    def setup(self, geometry: Geometry) -> None:
        dim = geometry.dim
        self.slimming = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(dim),
                nn.Linear(dim, dim // 2),
                nn.GELU(),
                nn.Linear(dim // 2, count, bias=False),  # the softmax over the tokens would take a bias out
            )
            for count in geometry.counts
        )

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        wide = torch.promote_types(tokens.x.dtype, torch.float32)
        weight = self.slimming[context.stage](tokens.patches).to(wide).mT.log_softmax(dim=2)
        share = weight.softmax(dim=1)  # of each token's patches, adding up to 1 over the K
        return tokens.mix(weight.exp()).replace(size=(share @ tokens.size.to(wide)[..., None])[..., 0])
