"""Convolution: pool the token grid by a learned strided convolution (a baseline of Marin et al. 2021, 2110.03860).

    y_(i,j) = b + Σ_(u,v) W_uv x_(r_i+u, c_j+v),    r_i = ⌊(i + ½) h/h' - ½⌋,    c_j = ⌊(j + ½) w/w' - ½⌋

for a kernel with offsets (u, v). So h' = h/2 is stride 2 (with padding 1 for a 3×3 kernel, no padding for 2×2), and any
other coarser grid is a fractional stride. The grid h'×w' is the largest one with at most K cells, as in grid pooling.
Outside the grid, the border tokens are repeated.

The paper does not give the kernel size, the stride or the position of the convolutions. The kernel is initialised as
the mean of its window. `size`, `owner` and `layout` follow the cells of the coarser grid; each token is in one cell.
"""

import torch
from torch import Tensor, nn

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register


@register("convolution")
class Convolution(Downsampler):
    """Pool neighbouring tokens with a learned kernel."""

    site = "after_block"
    trained = True
    paper = Paper("Token Pooling in Vision Transformers", "WACV", 2023, "2110.03860")

    def __init__(self, kernel: int = 3) -> None:
        """Choose the kernel.

        Args:
            kernel: Its height and width, in tokens.

        Raises:
            ValueError: `kernel` is less than 1.
        """
        super().__init__()
        if kernel < 1:
            raise ValueError(f"kernel={kernel}: must be at least 1")
        self.kernel = kernel
        self.kernels = nn.ModuleList()

    def setup(self, geometry: Geometry) -> None:
        dim, taps = geometry.dim, self.kernel**2
        self.kernels = nn.ModuleList(nn.Linear(taps * dim, dim) for _ in geometry.depths)
        for kernel in self.kernels:
            assert isinstance(kernel, nn.Linear)
            nn.init.zeros_(kernel.bias)
            with torch.no_grad():
                kernel.weight.copy_(torch.eye(dim).repeat(1, taps) / taps)

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        h, w = coarser_grid(layout, keep)
        return h * w

    def layout_after(self, keep: int, layout: tuple[int, int] | None) -> tuple[int, int]:
        return coarser_grid(layout, keep)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        h, w = coarser_grid(tokens.layout, keep)
        rows, columns = tokens.layout or (0, 0)
        device = tokens.x.device
        down = taps(rows, h, self.kernel, device)[:, None, :, None]
        across = taps(columns, w, self.kernel, device)[None, :, None, :]
        read = (down * columns + across).reshape(h * w, self.kernel**2)
        pooled = self.kernels[context.stage](tokens.patches[:, read].flatten(2))

        row = torch.arange(rows, device=device) * h // rows
        column = torch.arange(columns, device=device) * w // columns
        cell = (row[:, None] * w + column).flatten().expand(tokens.size.shape)
        return tokens.merge(cell, h * w, layout=(h, w)).replace(patches=pooled)


def taps(old: int, new: int, kernel: int, device: torch.device) -> Tensor:
    """(new, kernel), the positions among `old` that each of the `new` outputs reads along one axis."""
    centre = ((2 * torch.arange(new, device=device) + 1) * old - new) // (2 * new)
    offset = torch.arange(kernel, device=device) - (kernel - 1) // 2
    return (centre[:, None] + offset).clamp(0, old - 1)


def coarser_grid(layout: tuple[int, int] | None, keep: int) -> tuple[int, int]:
    """The largest grid with at most `keep` cells inside `layout` (h, w); of equal ones, the nearest in shape.

    Raises:
        ValueError: The tokens do not form a grid.
    """
    if layout is None:
        raise ValueError("convolution needs tokens that form a grid")
    rows, columns = layout
    grids = [(h, min(columns, keep // h)) for h in range(1, min(rows, keep) + 1)]
    return max(grids, key=lambda grid: (grid[0] * grid[1], -abs(grid[0] / rows - grid[1] / columns)))
