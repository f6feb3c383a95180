"""PPT: prune or merge tokens, depending on the image and the depth (Wu et al. 2023, arXiv 2310.01812).

The significance of a token, as in ATS (Fayyaz et al. 2022), with v_i the value of all heads together:

    S_i = a_i |v_i| / Σ_j a_j |v_j|,    a_i the class token's attention to i, over all heads

If the S_i of an image hardly differ, Var(S) < τ, attention does not show which tokens are unimportant, and the r most
similar pairs are merged as in ToMe (Bolya et al. 2023): every other token into its most similar one of the rest, by the
cosine of the keys. Otherwise the r tokens with the lowest significance are dropped. r is the same for all images.

Decided here: j runs over the patch tokens, the variance is the sample variance (N-1), and proportional attention is on,
as in ToMe. Merging can remove at most half of the tokens, so pruning is limited in the same way: of the last 96 tokens
in the schedule, 48 are kept, and this reproduces the published 2.944 gmacs.
"""

import torch
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, bipartite_matching, register


@register("ppt")
class PPT(Downsampler):
    """Merge similar tokens if their significance hardly differs in an image, else drop the least significant ones."""

    needs = frozenset({"cls_attention", "values", "keys"})
    proportional = True
    schedule = "explicit(counts=146-96-46,at=3-6-9)"
    paper = Paper("PPT: Token Pruning and Pooling for Efficient Vision Transformers", "arXiv", 2023, "2310.01812")

    def __init__(self, threshold: float = 7e-5) -> None:
        """Choose when to merge.

        Args:
            threshold: τ; images with a lower variance of the significance merge, the others prune.

        Raises:
            ValueError: `threshold` is negative.
        """
        super().__init__()
        if not threshold >= 0:
            raise ValueError(f"threshold={threshold}: must be at least 0")
        self.threshold = threshold

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return max(keep, n_patches - n_patches // 2)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n = tokens.n_patches
        left = self.count(keep, n, context.depth, tokens.layout)
        with torch.no_grad():
            wide = torch.promote_types(tokens.x.dtype, torch.float32)
            length = context.values.to(wide).square().sum(dim=(1, 3)).sqrt()
            score = context.cls_attention * length
            score = score / score.sum(dim=1, keepdim=True).clamp_min(torch.finfo(wide).tiny)

            position = torch.arange(n, device=score.device)
            ranked = score.argsort(dim=1, descending=True, stable=True)
            kept = ranked[:, :left].sort(dim=1).values
            pruned = torch.full_like(ranked, -1).scatter(1, kept, position[:left].expand_as(kept))

            keys = F.normalize(context.keys.to(wide), dim=2)
            source, target = position[1::2], position[::2]  # as in ToMe, which includes the class token
            pooled = bipartite_matching(keys[:, 1::2] @ keys[:, ::2].mT, source, target, n, n - left)

            even = score.var(dim=1, keepdim=True) < self.threshold
            owner = torch.where(even, pooled, pruned)
        return tokens.merge(owner, left)
