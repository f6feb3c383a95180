"""DynamicViT: a small network predicts which tokens to keep (Rao et al. 2021, arXiv 2106.02034).

Before a block, from the N patch tokens x with C channels:

    z = GELU(W LN(x)),    z_i ← [ z_i of the first C/2 channels ; mean_j z_j of the others ]
    π_i = softmax(MLP_{C → C/2 → C/4 → 2}(z_i)),    keep the K tokens with the highest π_i[0]

Training keeps all tokens. At each reduction, a decision d_i, 0 or 1, is drawn from π_i by Gumbel-softmax
(straight-through), and the presence of the token becomes p_i ← p_i d_i. Attention, pooling and the mean over z count a
token with its presence. The loss has the term

    2 · mean over reductions s and images of (mean_i p_i - K_s / N0)²

with K_s = ρ^s N0 for a schedule that keeps the fraction ρ. The paper's two distillation terms are part of the recipe.
Decided here: the present token with the highest sample always stays.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokbench import Context, Downsampler, Geometry, KeepPredictor, Paper, Tokens, kept_fraction_loss, register


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
        self.targets: tuple[int, ...] = ()

    def setup(self, geometry: Geometry) -> None:
        self.predictors = nn.ModuleList(KeepPredictor(geometry.dim) for _ in geometry.depths)
        self.targets = geometry.targets

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        probability = self.predictors[context.stage](tokens.patches)
        kept = probability.argsort(dim=1, descending=True, stable=True)[:, :keep].sort(dim=1).values
        return tokens.select(kept)

    def relaxed(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        predictor = self.predictors[context.stage]
        assert isinstance(predictor, KeepPredictor)
        presence = predictor.sample(tokens.patches, tokens.presence)
        own = torch.arange(tokens.n_patches, device=presence.device).expand_as(presence)
        return tokens.stay(own.masked_fill(presence < 0.5, -1), presence)

    def loss(self, after: Sequence[Tokens]) -> Tensor:
        return kept_fraction_loss(after, self.targets)
