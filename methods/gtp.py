"""GTP: drop tokens, and pass what they held on to their neighbours in a graph (Xu et al. 2024, arXiv 2311.03035).

With A the attention (heads h, queries q), the tokens of least

    max_h A[h, i, i] · max_h Σ_q A[h, q, i]    (hard to make of others) · (handed on to many)

are dropped, and those kept become

    x_kept + α Ĝ x_dropped,    Ĝ = D^(-1/2) G D^(-1/2),    D the degrees of G,

with rows of the kept and columns of the dropped tokens. G joins tokens that are next to each other in the image (8
neighbours) or alike (each with the M most similar by the cosine of x). Later attention adds the logarithm of the sizes
(the paper's token scales).

Ours, since our sources do not say: sizes are passed on as x is, edges all weigh the same, no token is joined to itself,
M = 8, queries include the class token. So `size` here is a scale rather than a count of patches, and `owner` tells of a
dropped token's patch that it is gone. The paper's graph comes from the first layer's tokens; here it is that of the
tokens present, as a method keeps nothing from depth to depth. The paper also keeps only the greatest entries of each
attention matrix, which changes the backbone and is left out; its published example leaves it out too.
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
            alpha: How much of the dropped tokens is passed on.
            graph: Which neighbours receive it: `spatial`, `semantic` or both.
            similar: M, how many most similar tokens each is joined with; at most N-1 are taken.

        Raises:
            ValueError: alpha outside [0, 1], or no similar token.
        """
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha={alpha}: from 0 to 1")
        if similar < 1:
            raise ValueError(f"similar={similar}: at least 1")
        self.alpha = alpha
        self.graph = graph
        self.similar = similar

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        p = tokens.n_prefix
        with torch.no_grad():
            wide = torch.promote_types(tokens.x.dtype, torch.float32)
            attention = context.attention.to(wide)
            alone = attention.diagonal(dim1=2, dim2=3)[..., p:].amax(dim=1)
            received = attention[..., p:].sum(dim=2).amax(dim=1)
            order = (alone * received).argsort(dim=1, descending=True, stable=True)
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
        left, gone = tokens.select(kept), tokens.select(dropped)
        return left.replace(
            patches=left.patches.to(wide) + links @ gone.patches.to(wide),
            size=left.size + (links.to(gone.size.dtype) @ gone.size[..., None])[..., 0],
        )


def adjacent(tokens: Tokens) -> Tensor:
    """(B, N, N), whether two tokens' patches touch, by a side or a corner; a token lies where its first patch does."""
    width = tokens.grid[1]
    patch = torch.arange(tokens.grid[0] * width, device=tokens.x.device).expand_as(tokens.owner)
    # One column more takes the patches that were dropped.
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
    """(B, N, N), whether one of two tokens is among the m most similar to the other (ties included)."""
    x = F.normalize(x, dim=2)
    cosine = x @ x.mT
    cosine.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    near = cosine >= cosine.topk(m, dim=2).values[..., -1:]
    return near | near.mT
