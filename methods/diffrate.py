"""DiffRate: prune the least attended tokens, then merge the next ones (Chen et al. 2023, arXiv 2305.17997).

In each block, the N tokens are sorted by a_i, the class token's attention to them (mean over heads). The first P are
kept; of these, each of the last P-K is merged into the one of the first K whose x has the largest cosine similarity to
its own. A merged token is the unweighted mean of its tokens. P and K of each block are learned once per model and
budget; the published values are for DeiT-S at 2.9 gmacs. K comes from the schedule, P from the parameter `prune`, both
in patch tokens (the paper includes the class token).

Decided here: if P is outside [K, N], as it can be with another schedule, it is clamped; blocks beyond the end of
`prune` do not prune. The size of a merged token is the sum of its tokens' sizes, the number of patches that it
represents; the public code adds the sizes of tokens that are merged into it only in proportion to the cosine.
"""

import torch
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("diffrate")
class DiffRate(Downsampler):
    """Drop the tokens that the class token attends to least, and merge the next ones into the others."""

    needs = frozenset({"cls_attention"})
    proportional = True
    schedule = "explicit(counts=196-193-175-155-140-132-120-106-87-63-55-2)"
    paper = Paper(
        "DiffRate: Differentiable Compression Rate for Efficient Vision Transformers", "ICCV", 2023, "2305.17997"
    )

    def __init__(self, prune: str = "196-195-189-167-149-138-128-116-98-77-57-2") -> None:
        """Choose the pruning rates.

        Args:
            prune: P of each block from block 0 on, the patch tokens left by pruning, before merging leaves K of them.

        Raises:
            ValueError: `prune` is not a sequence of whole numbers joined by `-`.
        """
        super().__init__()
        counts = prune.split("-")
        if not all(count.isdecimal() for count in counts):
            raise ValueError(f"prune={prune}: expected one whole number per block, as in 196-190-168")
        self.unpruned = tuple(int(count) for count in counts)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n = tokens.n_patches
        published = self.unpruned[context.depth] if context.depth < len(self.unpruned) else n
        p = min(max(published, keep), n)
        with torch.no_grad():
            order = context.cls_attention.argsort(dim=1, descending=True, stable=True)
            x = tokens.patches.to(torch.promote_types(tokens.x.dtype, torch.float32))
            x = F.normalize(x, dim=2).gather(1, order[..., None].expand_as(x))
            partner = (x[:, keep:p] @ x[:, :keep].mT).max(dim=2).indices
            kept = torch.arange(keep, device=order.device).expand(order.shape[0], keep)
            dropped = torch.full_like(order[:, p:], -1)
            owner = torch.zeros_like(order).scatter(1, order, torch.cat([kept, partner, dropped], dim=1))
        return tokens.merge(owner, keep, torch.ones_like(tokens.size))
