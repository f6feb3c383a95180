"""PatchMerger: K learned queries read K new tokens out of N (Renggli et al. 2022, arXiv 2202.12015).

    Y = softmax(Q LN(x)ᵀ) LN(x),    Q (K, D) learned, softmax over the N tokens

What is read is normalised too, so the new tokens leave the residual stream's scale, which fine-tuning makes up for.
The formula has no temperature; the queries start with a variance of 1/D, so that the logits' is about 1. A new token
is in the accounts for the patches of each token in proportion to its weight among the K.
"""

import torch
from torch import nn

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register


@register("patch_merger")
class PatchMerger(Downsampler):
    """Replace the tokens by what learned queries attend to."""

    site = "before_block"
    trained = True
    paper = Paper("Learning to Merge Tokens in Vision Transformers", "arXiv", 2022, "2202.12015")

    def __init__(self) -> None:
        """No parameters; the weights come with `setup`."""
        super().__init__()
        self.norms = nn.ModuleList()
        self.queries = nn.ParameterList()

    def setup(self, geometry: Geometry) -> None:
        dim = geometry.dim
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in geometry.depths)
        self.queries = nn.ParameterList(torch.randn(count, dim) / dim**0.5 for count in geometry.counts)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        wide = torch.promote_types(tokens.x.dtype, torch.float32)
        x = self.norms[context.stage](tokens.patches)
        logits = self.queries[context.stage].to(wide) @ x.to(wide).mT
        weight = logits.log_softmax(dim=2)
        share = weight.softmax(dim=1)  # of each token's patches, adding up to 1 over the K
        pooled = tokens.replace(patches=x).mix(weight.exp())
        return pooled.replace(size=(share @ tokens.size.to(wide)[..., None])[..., 0])
