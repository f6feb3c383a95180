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

from torch import nn

from tokbench import Context, Downsampler, Geometry, KeepPredictor, Paper, Tokens, register


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
        self.predictors = nn.ModuleList(KeepPredictor(geometry.dim) for _ in geometry.depths)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        probability = self.predictors[context.stage](tokens.patches)
        kept = probability.argsort(dim=1, descending=True, stable=True)[:, :keep].sort(dim=1).values
        result = tokens.select(kept)
        if self.training:
            kept_probability = probability.gather(1, kept)
            factor = 1 + kept_probability - kept_probability.detach()
            result = result.replace(patches=result.patches * factor[..., None].to(tokens.x.dtype))
        return result
