"""Token Fusion: prune similar tokens in early blocks, merge them in later ones (Kim et al. 2024, arXiv 2312.01026).

Pairs are found as in ToMe (Bolya et al. 2023): A and B are the even and the odd positions of the sequence, each a in A
is paired with the b in B whose mean key has the highest cosine with its own, and the r most similar a are merged into
their b. In block l, each group is replaced by

    l <  d:  x_b, the unchanged target ("pruned merge": the a are dropped)
    l >= d:  MLERP, x̄ / |x̄| · max_k |x_k|, x̄ = 1/n Σ_k x_k over the n members, since a mean has a smaller norm

because interpolated tokens harm the early blocks. In both cases the token represents the whole group afterwards: sizes
are added and used in the attention as in ToMe. This is our interpretation; our source gives neither the sizes of a
pruned merge nor whether MLERP's mean is weighted by size (`weighted`). A known port divides by the norm of the target
before merging instead of by |x̄|, and never updates the sizes.
"""

import torch
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, bipartite_matching, register


@register("tofu")
class ToFu(Downsampler):
    """Match similar tokens as in ToMe; drop them in early blocks, merge them and keep the norm in later ones."""

    needs = frozenset({"keys"})
    schedule = "every_block(r=13)"
    paper = Paper("Token Fusion: Bridging the Gap between Token Pruning and Token Merging", "WACV", 2024, "2312.01026")

    def __init__(self, prune_before: int = 6, weighted: bool = False, proportional: bool = True) -> None:
        """Choose where pruning ends and how sizes are used.

        Args:
            prune_before: d, the first block that merges; the default is the paper's best for the 12 blocks of a ViT-B.
            weighted: Whether MLERP's mean is weighted by size.
            proportional: Whether later attention weights a token by its size.

        Raises:
            ValueError: `prune_before` is negative.
        """
        super().__init__()
        if prune_before < 0:
            raise ValueError(f"prune_before={prune_before}: must be at least 0")
        self.prune_before = prune_before
        self.weighted = weighted
        self.proportional = proportional

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return max(keep, n_patches - n_patches // 2)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n = tokens.n_patches
        count = self.count(keep, n, context.depth, tokens.layout)
        wide = torch.promote_types(tokens.x.dtype, torch.float32)
        position = torch.arange(n, device=tokens.x.device)
        first = tokens.n_prefix % 2  # the first patch at an even position of the sequence
        a, b = position[first::2], position[1 - first :: 2]
        with torch.no_grad():
            keys = F.normalize(context.keys.to(wide), dim=2)
            owner = bipartite_matching(keys[:, first::2] @ keys[:, 1 - first :: 2].mT, a, b, n, n - count)
        one = torch.ones_like(tokens.size)
        if context.depth < self.prune_before:
            joined = owner >= count - b.shape[0]  # groups with a target
            in_a = (position - first) % 2 == 0
            return tokens.merge(owner, count, one.masked_fill(joined & in_a, 0))
        mean = tokens.merge(owner, count, tokens.size if self.weighted else one)
        length = torch.linalg.vector_norm(tokens.patches.to(wide), dim=2)
        longest = length.new_zeros(length.shape[0], count).scatter_reduce(1, owner, length, "amax")
        mean_length = torch.linalg.vector_norm(mean.patches.to(wide), dim=2).clamp_min(torch.finfo(wide).tiny)
        return mean.replace(patches=mean.patches * (longest / mean_length)[..., None])
