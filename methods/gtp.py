"""GTP: drop tokens, and propagate them to their neighbours in a graph (Xu et al. 2024, arXiv 2311.03035).

With A the attention (heads h, queries q), the tokens with the lowest

    max_h A[h, i, i] · max_h Σ_q A[h, q, i]    (hard to replace by others) · (attended to by many)

are dropped, and the kept tokens become

    x_kept + α Ĝ x_dropped,    Ĝ = D^(-1/2) G D^(-1/2),    D the degrees of G,

where the rows of Ĝ are kept tokens and the columns are dropped tokens. G connects tokens that are adjacent in the image
(8 neighbours) or similar (each with its M most similar tokens, by the cosine of x). Later attention adds the logarithm
of the sizes (the paper's token scales).

Our sources do not give the following details, decided here: sizes are propagated like x, all edges have the same
weight, there are no self-loops, M = 8, and queries include the class token. So `size` is a scale here rather than a
count of patches, and the patches of a dropped token have owner -1. The paper's graph comes from the tokens of the first
layer; here it comes from the present tokens, because a method keeps no state between depths. The paper also keeps only
the largest entries of each attention matrix, which changes the backbone; this is omitted here and in its published
example.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("gtp")
class GTP(Downsampler):
    """Drop tokens and propagate them to spatial and semantic neighbours."""

    needs = frozenset({"attention"})
    proportional = True
    schedule = "every_block(r=8)"
    paper = Paper(
        "GTP-ViT: Efficient Vision Transformers via Graph-based Token Propagation", "WACV", 2024, "2311.03035"
    )

    def __init__(
        self, alpha: float = 0.1, graph: Literal["mixed", "spatial", "semantic"] = "mixed", similar: int = 8
    ) -> None:
        """Choose the propagation.

        Args:
            alpha: The weight of the propagated tokens.
            graph: The neighbours: `spatial`, `semantic`, or `mixed` for both.
            similar: M, the number of similar tokens to which each token is connected; at most N-1 are used.

        Raises:
            ValueError: `alpha` is outside [0, 1], or `similar` is less than 1.
        """
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha={alpha}: must be between 0 and 1")
        if similar < 1:
            raise ValueError(f"similar={similar}: must be at least 1")
        self.alpha = alpha
        self.graph = graph
        self.similar = similar

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        p = tokens.n_prefix
        with torch.no_grad():
            wide = torch.promote_types(tokens.x.dtype, torch.float32)
            attention = context.attention.to(wide)
            own = attention.diagonal(dim1=2, dim2=3)[..., p:].amax(dim=1)
            received = attention[..., p:].sum(dim=2).amax(dim=1)
            order = (own * received).argsort(dim=1, descending=True, stable=True)
            kept, dropped = order[:, :keep].sort(dim=1).values, order[:, keep:]

            edges = torch.zeros_like(attention[:, 0, p:, p:], dtype=torch.bool)
            if self.graph != "semantic":
                edges = edges | adjacent(tokens)
            if self.graph != "spatial":
                edges = edges | similar(tokens.patches.to(wide), min(self.similar, tokens.n_patches - 1))
            scale = edges.sum(dim=2).clamp_min(1).to(wide).rsqrt()
            links = edges.gather(1, kept[..., None].expand(-1, -1, tokens.n_patches))
            links = links.gather(2, dropped[:, None].expand(-1, keep, -1))
            links = scale.gather(1, kept)[..., None] * links * scale.gather(1, dropped)[:, None]
            links = self.alpha * links
        after, removed = tokens.select(kept), tokens.select(dropped)
        return after.replace(
            patches=after.patches.to(wide) + links @ removed.patches.to(wide),
            size=after.size + (links.to(removed.size.dtype) @ removed.size[..., None])[..., 0],
        )


def adjacent(tokens: Tokens) -> Tensor:
    """(B, N, N), whether two tokens touch at a side or corner; the position of a token is that of its first patch."""
    width = tokens.grid[1]
    patch = torch.arange(tokens.grid[0] * width, device=tokens.x.device).expand_as(tokens.owner)
    # The extra column collects the dropped patches.
    column = torch.where(tokens.owner < 0, tokens.n_patches, tokens.owner)
    last = torch.full_like(F.pad(tokens.size, (0, 1)), tokens.grid[0] * width, dtype=torch.int64)
    place = last.scatter_reduce(1, column, patch, "amin")[:, :-1]
    row, column = (place // width).to(torch.int32), (place % width).to(torch.int32)
    apart = torch.maximum(
        (row[:, :, None] - row[:, None]).abs(),
        (column[:, :, None] - column[:, None]).abs(),
    )
    return apart == 1


def similar(x: Tensor, m: int) -> Tensor:
    """(B, N, N), whether one of two tokens is among the m tokens most similar to the other, including ties."""
    x = F.normalize(x, dim=2)
    cosine = x @ x.mT
    cosine.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    near = cosine >= cosine.topk(m, dim=2).values[..., -1:]
    return near | near.mT
