"""Token Merging: merge the r most similar pairs of tokens (Bolya et al. 2023, arXiv 2210.09461).

The tokens of the sequence are split alternately into A (even positions) and B (odd positions). Each a in A is paired
with its most similar b in B, and the r most similar pairs are merged:

    similarity: cosine of k̄_i = mean_h K[h, i], this block's keys
    merged:     x_b ← Σ s_i x_i / Σ s_i over b and the a merged into it, s_b ← Σ s_i, the size
    attention:  softmax(q·k / √d + log s), "proportional", in all blocks that follow

Prefix tokens are not merged, but count in the positions: with one class token, patches 1, 3, 5... are A. The result
contains the unmerged tokens of A, then B. As published, at most half of the patch tokens are removed at once.
"""

import torch
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, bipartite_matching, register


@register("tome")
class ToMe(Downsampler):
    """Merge pairs of similar tokens."""

    needs = frozenset({"keys"})
    schedule = "every_block(r=13)"
    paper = Paper("Token Merging: Your ViT But Faster", "ICLR", 2023, "2210.09461")

    def __init__(self, proportional: bool = True) -> None:
        """Choose the attention.

        Args:
            proportional: Whether later attention weights a token by its size; the paper does not use it for
                off-the-shelf MAE models.
        """
        super().__init__()
        self.proportional = proportional

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return max(keep, n_patches - n_patches // 2)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n = tokens.n_patches
        count = self.count(keep, n, context.depth, tokens.layout)
        position = torch.arange(n, device=tokens.x.device)
        first = tokens.n_prefix % 2  # the first patch at an even position of the sequence
        a, b = position[first::2], position[1 - first :: 2]
        with torch.no_grad():
            keys = F.normalize(context.keys.to(torch.promote_types(context.keys.dtype, torch.float32)), dim=2)
            similarity = keys[:, first::2] @ keys[:, 1 - first :: 2].mT
            owner = bipartite_matching(similarity, a, b, n, n - count)
        return tokens.merge(owner, count)
