"""DiffRate: prune the least attended tokens, then merge the next few (Chen et al. 2023, arXiv 2305.17997).

In each block the N tokens are sorted by a_i, the class token's attention to them (mean over heads). The first P stay;
of these, each of the last P-K is merged into the one of the first K whose x has the greatest cosine with its own. A
merged token is the plain mean of its tokens, whatever their sizes. P and K of each block are learned once for a
model and a budget; those published are for DeiT-S at 2.9 gmacs. K comes from the schedule, P from the parameter,
in patch tokens (the paper counts the class token too).

Ours: where P does not fit into [K, N], as under another schedule, it is clamped; beyond the last block it names
nothing is pruned. A merged token's size is the sum of its tokens' sizes, the patches it stands for; the public code
adds that of a merged token only in proportion to the cosine.
"""

import torch
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("diffrate")
class DiffRate(Downsampler):
    """Drop the tokens that the class token attends to least, merge the next into the rest."""

    needs = frozenset({"cls_attention"})
    proportional = True
    schedule = "explicit(counts=196-193-175-155-140-132-120-106-87-63-55-2)"
    paper = Paper(
        "DiffRate: Differentiable Compression Rate for Efficient Vision Transformers", "ICCV", 2023, "2305.17997"
    )

    def __init__(self, prune: str = "196-195-189-167-149-138-128-116-98-77-57-2") -> None:
        """Choose the pruning rates.

        Args:
            prune: P of each block from 0 on, the patch tokens that pruning leaves before K of them are left by merging.

        Raises:
            ValueError: Anything but whole numbers joined by `-`.
        """
        super().__init__()
        counts = prune.split("-")
        if not all(count.isdecimal() for count in counts):
            raise ValueError(f"prune={prune}: one whole number a block, as in 196-190-168")
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
