"""Sinkhorn: optimal transport from the tokens to K learned centres (Haurum et al. 2023, arXiv 2308.04657).

With tokens x̂_i and learned queries q̂_k of unit length, the plan Γ = argmax Σ Γ_ki q̂_k·x̂_i + ε H(Γ) that gives every
token and every centre the same mass is found by normalising exp(q̂ x̂ᵀ / ε) in turn, in the log domain:

    3 times:  Σ_k Γ_ki = 1 for each token i, then Σ_i Γ_ki = 1 for each centre k;    y = Γ x

with ε = 1 (columns that sum to 1 rather than K/N change nothing: the next step takes out a common factor). It ends
with the centres, so each new token is a weighted mean. The authors' code mixes the tokens of unit length; here the
tokens themselves are mixed, which keeps the residual stream's scale. A new token is in the accounts for the patches
of each token in proportion to its weight among the K.
"""

import torch
from torch import nn
from torch.nn import functional as F

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register


@register("sinkhorn")
class Sinkhorn(Downsampler):
    """Replace the tokens by their transport to learned centres."""

    site = "before_block"
    trained = True
    paper = Paper(
        "Which Tokens to Use? Investigating Token Reduction in Vision Transformers", "ICCVW", 2023, "2308.04657"
    )

    def __init__(self, epsilon: float = 1.0, iterations: int = 3) -> None:
        """Choose the transport.

        Args:
            epsilon: ε, the weight of the plan's entropy; the smaller, the harder the assignment.
            iterations: Rounds of normalisation.

        Raises:
            ValueError: An ε that is not positive, or no round.
        """
        super().__init__()
        if epsilon <= 0 or iterations < 1:
            raise ValueError(f"epsilon={epsilon}, iterations={iterations}: above 0 and at least 1")
        self.epsilon = epsilon
        self.iterations = iterations
        self.queries = nn.ParameterList()

    def setup(self, geometry: Geometry) -> None:
        self.queries = nn.ParameterList(torch.randn(count, geometry.dim) for count in geometry.counts)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        wide = torch.promote_types(tokens.x.dtype, torch.float32)
        queries = F.normalize(self.queries[context.stage].to(wide), dim=1)
        log_plan = queries @ F.normalize(tokens.patches.to(wide), dim=2).mT / self.epsilon
        for _ in range(self.iterations):
            log_plan = log_plan.log_softmax(dim=1).log_softmax(dim=2)
        share = log_plan.softmax(dim=1)  # of each token's patches, adding up to 1 over the K
        return tokens.mix(log_plan.exp()).replace(size=(share @ tokens.size.to(wide)[..., None])[..., 0])
