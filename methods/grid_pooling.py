"""Grid pooling: lay a coarser grid over the tokens and take the mean or the maximum of each of its cells.

Of the grids h'×w' with h' <= h, w' <= w and h'·w' <= K the one with the most cells is taken, of those the one nearest
to the tokens' own shape, of those the one with fewer rows. Token (i, j) belongs to cell (⌊i·h'/h⌋, ⌊j·w'/w⌋), so every
token is in one cell. The structured baseline of the papers (Marin et al. 2021; Rao et al. 2021; Xu et al. 2022).
"""

from typing import Literal

import torch

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("grid_pooling")
class GridPooling(Downsampler):
    """Pool neighbouring tokens, whatever they hold."""

    paper = Paper("Token Pooling in Vision Transformers", "WACV", 2023, "2110.03860")

    def __init__(self, reduce: Literal["mean", "max"] = "mean") -> None:
        """Choose the reduction.

        Args:
            reduce: `mean`, each token weighted by the image patches it stands for; `max`, channel by channel.
        """
        super().__init__()
        self.reduce = reduce

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        h, w = coarser(layout, keep)
        return h * w

    def layout_after(self, keep: int, layout: tuple[int, int] | None) -> tuple[int, int]:
        return coarser(layout, keep)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        h, w = coarser(tokens.layout, keep)
        rows, columns = tokens.layout or (0, 0)
        device = tokens.x.device
        row = torch.arange(rows, device=device) * h // rows
        column = torch.arange(columns, device=device) * w // columns
        cell = (row[:, None] * w + column).flatten().expand(tokens.size.shape)
        merged = tokens.merge(cell, h * w, layout=(h, w))
        if self.reduce == "mean":
            return merged
        index = cell[..., None].expand_as(tokens.patches)
        lowest = torch.full_like(merged.patches, -torch.inf)
        return merged.replace(patches=lowest.scatter_reduce(1, index, tokens.patches, "amax"))


def coarser(layout: tuple[int, int] | None, keep: int) -> tuple[int, int]:
    """The largest grid of at most `keep` cells that fits into `layout` (h, w), nearest to its shape.

    Raises:
        ValueError: The tokens lie on no grid.
    """
    if layout is None:
        raise ValueError("grid pooling wants tokens that still lie on a grid")
    rows, columns = layout
    grids = [(h, min(columns, keep // h)) for h in range(1, min(rows, keep) + 1)]
    return max(grids, key=lambda grid: (grid[0] * grid[1], -abs(grid[0] / rows - grid[1] / columns)))
