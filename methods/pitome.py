"""PiToMe: merge tokens with many similar ones, protect distinct tokens (Tran et al. 2024, arXiv 2405.16148).

With cos_ij the cosine of the keys (mean over heads) of patch tokens i and j, each token in block l of L has the energy

    E_i = 1/N Σ_j ELU_α(cos_ij - m_l),    m_l = margin · (1 - l/L),    ELU_α(z) = z for z >= 0, α (e^z - 1) below,

which is high inside a large cluster. Tokens are ranked by descending energy; even ranks are set A, odd ranks set B, and
r = N - K tokens of A are merged into their most similar B as in ToMe, by a mean weighted by size:

    l <  ⌈L/2⌉:  among all tokens, the r most similar pairs
    l >= ⌈L/2⌉:  among the 2r tokens with the highest energy, all pairs; the others are protected

The energy and `proportional` follow the authors' code for classification, which does not use sizes in the attention;
its margins differ between versions. The class token is not involved. At most half of the patch tokens are removed at
once.
"""

import math

import torch
from torch.nn import functional as F

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, bipartite_matching, register


@register("pitome")
class PiToMe(Downsampler):
    """Merge tokens with many similar ones (high energy), and protect distinct tokens (low energy)."""

    needs = frozenset({"keys"})
    schedule = "every_block"
    paper = Paper("Accelerating Transformers with Spectrum-Preserving Token Merging", "NeurIPS", 2024, "2405.16148")

    def __init__(self, layers: int = 12, margin: float = 0.75, alpha: float = 1.0, proportional: bool = False) -> None:
        """Choose the energy.

        Args:
            layers: L, the model's number of blocks.
            margin: The cosine above which tokens are similar in the first block; it decreases to 0 after the last.
            alpha: How much dissimilar tokens lower the energy.
            proportional: Whether later attention weights a token by its size.

        Raises:
            ValueError: `layers` is less than 1, `margin` is outside [-1, 1], or `alpha` is negative.
        """
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers={layers}: must be at least 1")
        if not -1 <= margin <= 1:
            raise ValueError(f"margin={margin}: must be between -1 and 1")
        if alpha < 0:
            raise ValueError(f"alpha={alpha}: must be at least 0")
        self.layers = layers
        self.margin = margin
        self.alpha = alpha
        self.proportional = proportional

    def setup(self, geometry: Geometry) -> None:
        last = max(geometry.depths, default=0)
        if last >= self.layers:
            raise ValueError(f"layers={self.layers}, but the method acts in block {last}: give the model's number")

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return max(keep, n_patches - n_patches // 2)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n = tokens.n_patches
        count = self.count(keep, n, context.depth, tokens.layout)
        r = n - count
        with torch.no_grad():
            keys = F.normalize(context.keys.to(torch.promote_types(tokens.x.dtype, torch.float32)), dim=2)
            cosine = keys @ keys.mT
            margin = self.margin * (1 - context.depth / self.layers)
            energy = F.elu(cosine - margin, self.alpha).mean(dim=2)
            ranked = energy.argsort(dim=1, descending=True, stable=True)
            if context.depth >= math.ceil(self.layers / 2):
                ranked = ranked[:, : 2 * r]
            a, b = ranked[:, 0::2], ranked[:, 1::2]
            similarity = cosine.gather(1, a[..., None].expand(-1, -1, n))
            similarity = similarity.gather(2, b[:, None].expand(-1, a.shape[1], -1))
            owner = bipartite_matching(similarity, a, b, n, r)
        return tokens.merge(owner, count)
