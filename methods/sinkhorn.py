"""Sinkhorn: optimal transport from the tokens to K learned centres (Haurum et al. 2023, arXiv 2308.04657).

With unit-length tokens x̂_i and learned queries q̂_k, the transport plan Γ = argmax Σ Γ_ki q̂_k·x̂_i + ε H(Γ), in which
all tokens and all centres have equal mass, is found by alternately normalising exp(q̂ x̂ᵀ / ε) in the log domain:

    3 times:  Σ_k Γ_ki = 1 for each token i, then Σ_i Γ_ki = 1 for each centre k;    y = Γ x

with ε = 1 (columns that sum to 1 instead of K/N make no difference: the next step removes a common factor). The last
step normalises the centres, so each new token is a weighted mean of the original tokens, which keeps the residual
stream's scale. The authors' code (JoakimHaurum/TokenReduction, models/sinkhorn.py) swaps the two normalisations, so
that the last one is of the tokens, and sums the unit-length tokens: y = Γ x̂. This is the variant `haurum`, for its
checkpoints; the code scales its centres to unit length at each call, in place, and only their rounding differs from
call to call. For `size` and `owner`, each token is
divided among the K new tokens in proportion to their weights for it.
"""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register


@register("sinkhorn")
class Sinkhorn(Downsampler):
    """Replace the tokens by weighted means, from their optimal transport to learned centres."""

    site = "before_block"
    trained = True
    paper = Paper(
        "Which Tokens to Use? Investigating Token Reduction in Vision Transformers", "ICCVW", 2023, "2308.04657"
    )

    def __init__(
        self, epsilon: float = 1.0, iterations: int = 3, variant: Literal["default", "haurum"] = "default"
    ) -> None:
        """Choose the transport.

        Args:
            epsilon: ε, the weight of the plan's entropy; the smaller, the harder the assignment.
            iterations: Rounds of normalisation.
            variant: `default`: weighted means of the tokens; `haurum`: sums of unit-length tokens, as in the code of
                Haurum et al. 2023, for its checkpoints.

        Raises:
            ValueError: `epsilon` is not positive, or `iterations` is less than 1.
        """
        super().__init__()
        if epsilon <= 0 or iterations < 1:
            raise ValueError(f"epsilon={epsilon}, iterations={iterations}: must be above 0 and at least 1")
        self.epsilon = epsilon
        self.iterations = iterations
        self.variant = variant
        self.queries = nn.ParameterList()

    def setup(self, geometry: Geometry) -> None:
        self.queries = nn.ParameterList(torch.randn(count, geometry.dim) for count in geometry.counts)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        wide = torch.promote_types(tokens.x.dtype, torch.float32)
        queries = F.normalize(self.queries[context.stage].to(wide), dim=1)
        unit = F.normalize(tokens.patches.to(wide), dim=2)
        log_plan = queries @ unit.mT / self.epsilon
        first, last = (2, 1) if self.variant == "haurum" else (1, 2)  # 1: over the centres, 2: over the tokens
        for _ in range(self.iterations):
            log_plan = log_plan.log_softmax(dim=first).log_softmax(dim=last)
        share = log_plan.softmax(dim=1)  # of each token's size; sums to 1 over K
        averaged = tokens.replace(patches=unit) if self.variant == "haurum" else tokens
        return averaged.mix(log_plan.exp()).replace(size=(share @ tokens.size.to(wide)[..., None])[..., 0])
