"""Grid pooling: the mean or maximum of the tokens in each cell of a coarser grid.

Of the grids h'×w' with h' <= h, w' <= w and h'·w' <= K, the one with the most cells is used; of equal ones, the nearest
in shape to the tokens' grid; of those, the one with fewer rows. Token (i, j) belongs to cell (⌊i·h'/h⌋, ⌊j·w'/w⌋), so
each token is in exactly one cell. A structured baseline in several papers (Marin et al. 2021; Rao et al. 2021; Xu et
al. 2022).
"""

from typing import Literal

import torch

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("grid_pooling")
class GridPooling(Downsampler):
    """Pool neighbouring tokens on a regular grid, independent of their content."""

    paper = Paper("Token Pooling in Vision Transformers", "WACV", 2023, "2110.03860")

    def __init__(self, reduce: Literal["mean", "max"] = "mean") -> None:
        """Choose the reduction.

        Args:
            reduce: `mean`, weighted by the number of image patches of each token; `max`, per channel.
        """
        super().__init__()
        self.reduce = reduce

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        h, w = coarser_grid(layout, keep)
        return h * w

    def layout_after(self, keep: int, layout: tuple[int, int] | None) -> tuple[int, int]:
        return coarser_grid(layout, keep)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        h, w = coarser_grid(tokens.layout, keep)
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


def coarser_grid(layout: tuple[int, int] | None, keep: int) -> tuple[int, int]:
    """The largest grid with at most `keep` cells inside `layout` (h, w); of equal ones, the nearest in shape.

    Raises:
        ValueError: The tokens do not form a grid.
    """
    if layout is None:
        raise ValueError("grid_pooling needs tokens that form a grid")
    rows, columns = layout
    grids = [(h, min(columns, keep // h)) for h in range(1, min(rows, keep) + 1)]
    return max(grids, key=lambda grid: (grid[0] * grid[1], -abs(grid[0] / rows - grid[1] / columns)))
