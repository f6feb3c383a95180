"""PatchMerger: K learned queries attend to N tokens and give K new ones (Renggli et al. 2022, arXiv 2202.12015).

    Y = softmax(Q LN(x)ᵀ) LN(x),    Q (K, D) learned, softmax over the N tokens

The averaged tokens are normalised too, so the new tokens do not have the residual stream's scale; fine-tuning adapts to
this. The formula has no temperature; the queries are initialised with variance 1/D, so that the logits have a variance
of about 1. For `size` and `owner`, each token is divided among the K new tokens in proportion to their weights for it.
"""

import torch
from torch import nn

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register


@register("patch_merger")
class PatchMerger(Downsampler):
    """Replace the tokens by averages, weighted by the attention of learned queries."""

    site = "before_block"
    trained = True
    paper = Paper("Learning to Merge Tokens in Vision Transformers", "arXiv", 2022, "2202.12015")

    def __init__(self) -> None:
        """Create the method, which has no parameters; `setup` creates its weights."""
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
        share = weight.softmax(dim=1)  # of each token's size; sums to 1 over K
        pooled = tokens.replace(patches=x).mix(weight.exp())
        return pooled.replace(size=(share @ tokens.size.to(wide)[..., None])[..., 0])
