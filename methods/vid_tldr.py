"""vid-TLDR: merge similar tokens, weighted by how salient they are (Choi et al. 2024, arXiv 2403.13347).

A token that attends to few others is salient, one that attends to all alike is background. With Ā = mean_h A[h], from
the attention without sizes, and r = N - K,

    saliency: s_i = Σ_j Ā_ij log Ā_ij, the negative entropy of row i
    weight:   w_i = max(s_i - s̄, 0) / max_j (s_j - s̄), s̄ the mean over the patch tokens
    match:    the r pairs of the highest cosine of x, from the tokens at even positions to those at odd ones, as in ToMe
    merge:    x_b ← (n_b x_b + Σ w_a n_a x_a) / (n_b + Σ w_a n_a), n_b ← n_b + Σ w_a n_a, over the a merged into b

So a merged background token (w = 0) vanishes, and a target counts in full whatever its own saliency. Later attention
adds log n (proportional attention), and at most half of the patch tokens are removed at once.

Confirmed in mlvlab/vid-TLDR, multi_modality/utils/vid_TLDR.py and models/backbones/vit/vit.py. The code first scales s
to [0, 1], which does not change w. Its numbers and schedules are of videos, so no published schedule is given here.
Decided here: the public models have no class token. Prefix tokens are left alone and do not count in the positions, but
the whole row of attention, their columns included, enters the entropy. The attention without sizes is recovered from
the one that ran: A_ij / n_j, with rows scaled to 1 again. If all rows have the same entropy, all weights are 0, where
the code divides by zero. Patches of a token that vanishes are dropped.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, bipartite_matching, group_sum, register


@register("vid_tldr")
class VidTLDR(Downsampler):
    """Merge pairs of similar tokens, of which background tokens vanish."""

    needs = frozenset({"attention"})
    proportional = True
    paper = Paper(
        "vid-TLDR: Training Free Token merging for Light-weight Video Transformer", "CVPR", 2024, "2403.13347"
    )

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return max(keep, n_patches - n_patches // 2)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n = tokens.n_patches
        count = self.count(keep, n, context.depth, tokens.layout)
        with torch.no_grad():
            wide = torch.promote_types(tokens.x.dtype, torch.float32)
            x = F.normalize(tokens.patches.to(wide), dim=2)
            position = torch.arange(n, device=x.device)
            owner = bipartite_matching(x[:, ::2] @ x[:, 1::2].mT, position[::2], position[1::2], n, n - count)
            # The last groups are those of the targets, the odd tokens.
            merged = (owner >= count - n // 2) & (position % 2 == 0)
            salient = weights(context.attention.to(wide), tokens.size.to(wide))
            weight = torch.where(merged, salient, 1) * tokens.size
            owner = owner.masked_fill(weight == 0, -1)
        size = group_sum(weight[..., None], owner, count)[..., 0]
        return tokens.merge(owner, count, weight).replace(size=size)


def weights(attention: Tensor, size: Tensor) -> Tensor:
    """The weight of each patch token, from 0 for background to 1 for the most salient token.

    Args:
        attention: (B, H, P+N, P+N), with log(size) in its logits.
        size: (B, N).

    Returns:
        (B, N), from 0 to 1.
    """
    prefix = attention.shape[-1] - size.shape[1]
    plain = attention[:, :, prefix:] / F.pad(size, (prefix, 0), value=1.0)[:, None, None]
    row = (plain / plain.sum(dim=-1, keepdim=True)).mean(dim=1)
    tiny = torch.finfo(row.dtype).tiny
    s = (row * row.clamp_min(tiny).log()).sum(dim=-1)
    above = s - s.amin(dim=1, keepdim=True)  # equal ones are exactly 0 now, and not by rounding above their mean
    above = above - above.mean(dim=1, keepdim=True)
    return above.clamp_min(0) / above.amax(dim=1, keepdim=True).clamp_min(tiny)
