"""DTEM: merge by an embedding learned for merging alone (Lee and Hong 2024, arXiv 2412.10569).

    z_i = W x_i + b  (64 channels),    c_ij = cos(z_i, z_j)

Tokens at odd places are sources, those at even places targets (a class token would stand before them); of the pairs
of a source and its most similar target the N-K most similar become one token each, the mean weighted by size, and
later attention adds log(size): ToMe's matching on z. At most half of the tokens can go.

The paper's training relaxes grouping and merging (a soft choice of the top r); that comes with `tokbench finetune`.
In training mode merging is hard here too, and a merged source's weight carries a factor c / c = 1 whose gradient
reaches W (straight-through). What z is computed from could not be read: the token that would be merged, cut off from
the gradient, since the embedding is to stay apart from the backbone's features.
"""

import torch
from torch import nn
from torch.nn import functional as F

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, bipartite_matching, register


@register("dtem")
class DTEM(Downsampler):
    """Merge the tokens whose learned embeddings are most alike."""

    proportional = True
    trained = True
    schedule = "every_block(r=12)"
    paper = Paper(
        "Learning to Merge Tokens via Decoupled Embedding for Efficient Vision Transformers",
        "NeurIPS",
        2024,
        "2412.10569",
    )

    def __init__(self, channels: int = 64) -> None:
        """Choose the embedding.

        Args:
            channels: Of z.

        Raises:
            ValueError: No channel.
        """
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels={channels}: at least 1")
        self.channels = channels
        self.embeddings = nn.ModuleList()

    def setup(self, geometry: Geometry) -> None:
        self.embeddings = nn.ModuleList(nn.Linear(geometry.dim, self.channels) for _ in geometry.depths)

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return max(keep, n_patches - n_patches // 2)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n, device = tokens.n_patches, tokens.x.device
        wide = torch.promote_types(tokens.x.dtype, torch.float32)
        z = F.normalize(self.embeddings[context.stage](tokens.patches.detach()).to(wide), dim=2)
        similarity = z[:, 1::2] @ z[:, 0::2].mT
        source, target = torch.arange(1, n, 2, device=device), torch.arange(0, n, 2, device=device)
        merged = n - self.count(keep, n, context.depth, tokens.layout)
        owner = bipartite_matching(similarity, source, target, n, merged)
        weight = tokens.size.to(wide)
        if self.training:
            best = similarity.amax(dim=2).to(wide)  # autocast multiplies matrices in half precision
            factor = torch.ones_like(weight).scatter(1, source.expand_as(best), 1 + best - best.detach())
            weight = weight * factor
        return tokens.merge(owner, n - merged, weight)
