"""TokenLearner: pool N tokens into K by K learned importance maps (Ryoo et al. 2021, arXiv 2106.11297).

    α = MLP_{D → 64 → K}(LN(x)),    y_k = Σ_i softmax_i(α_ik) x_i      (version 1.1)
                                    y_k = mean_i sigmoid(α_ik) x_i     (the paper's gate and average pooling)

Version 1.0 computes the maps α by convolutions, which need tokens on a grid; the authors' version 1.1 uses a two-layer
MLP, as here, and softmax. The published configuration is a single reduction to 8 or 16 tokens in the middle of the
network; the MLP's dropout is part of the training recipe. For `size` and `owner`, each token is divided among the K new
tokens in proportion to their gates for it.
"""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register


@register("token_learner")
class TokenLearner(Downsampler):
    """Pool the tokens by learned importance maps."""

    site = "before_block"
    trained = True
    paper = Paper("TokenLearner: Adaptive Space-Time Tokenization for Videos", "NeurIPS", 2021, "2106.11297")

    def __init__(self, gate: Literal["softmax", "sigmoid"] = "softmax", bottleneck: int = 64) -> None:
        """Choose the version.

        Args:
            gate: `softmax` over the tokens (version 1.1), or `sigmoid` and the mean over the tokens (the paper).
            bottleneck: The number of hidden channels of the MLP.

        Raises:
            ValueError: `bottleneck` is less than 1.
        """
        super().__init__()
        if bottleneck < 1:
            raise ValueError(f"bottleneck={bottleneck}: must be at least 1")
        self.gate = gate
        self.bottleneck = bottleneck
        self.maps = nn.ModuleList()

    def setup(self, geometry: Geometry) -> None:
        dim, hidden = geometry.dim, self.bottleneck
        bias = self.gate == "sigmoid"  # it would cancel in the softmax over the tokens
        self.maps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, count, bias=bias))
            for count in geometry.counts
        )

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        wide = torch.promote_types(tokens.x.dtype, torch.float32)
        alpha = self.maps[context.stage](tokens.patches).to(wide).mT
        if self.gate == "softmax":
            log_gate = alpha.log_softmax(dim=2)
            pooled = tokens.mix(log_gate.exp())
        else:
            log_gate = -F.softplus(-alpha)
            pooled = tokens.mix(log_gate.exp() / tokens.n_patches)
        share = log_gate.softmax(dim=1)  # of each token's size; sums to 1 over K
        return pooled.replace(size=(share @ tokens.size.to(wide)[..., None])[..., 0])
