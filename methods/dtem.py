"""DTEM: merge tokens by an embedding learned only for merging (Lee and Hong 2024, arXiv 2412.10569).

    z_i = W x_i + b  (64 channels),    c_ij = cos(z_i, z_j)

This is ToMe's matching applied to z: patch tokens at odd positions are sources, those at even positions targets (the
class token comes before them). Each source is paired with its most similar target, and the N-K most similar pairs
become one token each, the mean weighted by size; later attention adds log(size). At most half of the tokens can be
removed.

In the paper's training, grouping and merging are relaxed (a soft selection of the top r); that is part of
`tokbench finetune`. Here merging is hard in training mode too, and the weight of a merged source has a factor c / c = 1
whose gradient reaches W (straight-through). Our sources do not say what z is computed from; here it is the token to be
merged, detached, because the embedding should be independent of the backbone's features.
"""

import torch
from torch import nn
from torch.nn import functional as F

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, bipartite_matching, register


@register("dtem")
class DTEM(Downsampler):
    """Merge the tokens whose learned embeddings are most similar."""

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
            channels: The number of channels of z.

        Raises:
            ValueError: `channels` is less than 1.
        """
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels={channels}: must be at least 1")
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
