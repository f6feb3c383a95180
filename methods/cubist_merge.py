"""CubistMerge: shorten every row, then every column, by merging neighbours (Gong and Lis 2025, arXiv 2509.21764).

In a line of T tokens, those at odd positions are sources and those at even positions targets. A source i is compared
with its neighbours i-1 and i+1, both targets, by the cosine of the tokens themselves; the r sources with the most
similar neighbour are merged into it, r <= ⌊T/2⌋. Each channel of a merged token takes the value of largest magnitude,

    x[c] ← the x_m[c] with the largest |x_m[c]|, m over the target and the sources merged into it

The order in the line is kept. All rows lose the same number of tokens, then all columns, so the result is a grid.

Confirmed in the authors' code: github.com/0118-999-88999-9119-725-3/cubist-dinov3, dinov3/layers/cume.py, and
.../CubistMerge, README.md and cume/patch/timm.py: for DeiT one reduction before block 1, by 1 or 2 rows and columns.

Decided here: rows and columns lose a token in turn, rows first, until at most K are left or each line has lost half.
Where two sources go to one target, the code reads the target before either is merged, so one of them can be lost; here
all three count, as in the paper's text. Of equal magnitudes the target's value stays, then the left source's; equally
similar neighbours and sources are taken from the left.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("cubist_merge")
class CubistMerge(Downsampler):
    """Merge similar neighbours in rows and columns, so that the tokens stay on a grid."""

    site = "before_block"
    schedule = "stages(at=1)"
    paper = Paper(
        "CubistMerge: Spatial-Preserving Token Merging For Diverse ViT Backbones", "arXiv", 2025, "2509.21764"
    )

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        h, w = shortened(layout, keep)
        return h * w

    def layout_after(self, keep: int, layout: tuple[int, int] | None) -> tuple[int, int]:
        return shortened(layout, keep)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        h, w = shortened(tokens.layout, keep)
        rows, columns = tokens.layout or (0, 0)
        batch, _, dim = tokens.x.shape
        x, column = shorten(tokens.patches.reshape(batch, rows, columns, dim), w)
        x, row = shorten(x.transpose(1, 2), h)
        row = row.transpose(1, 2).gather(2, column)  # of each token, after its row was shortened
        owner = (row * w + column).flatten(1)
        return tokens.merge(owner, h * w, layout=(h, w)).replace(patches=x.transpose(1, 2).flatten(1, 2))


def shortened(layout: tuple[int, int] | None, keep: int) -> tuple[int, int]:
    """The grid (h, w) that is left if at most `keep` tokens are wanted.

    Raises:
        ValueError: The tokens do not form a grid.
    """
    if layout is None:
        raise ValueError("cubist_merge needs tokens that form a grid")
    h, w = layout
    least_h, least_w = h - h // 2, w - w // 2
    while h * w > keep and (h > least_h or w > least_w):
        if w > least_w and (layout[1] - w <= layout[0] - h or h == least_h):
            w -= 1
        else:
            h -= 1
    return h, w


def shorten(x: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Shorten lines of T tokens, x (B, L, T, D), to `length`.

    Returns:
        The merged tokens (B, L, length, D), and the new position of each token, (B, L, T) in [0, length).
    """
    n = x.shape[2]
    with torch.no_grad():
        unit = F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=3)
        similarity = F.pad((unit[:, :, :-1] * unit[:, :, 1:]).sum(dim=3), (1, 1), value=-torch.inf)
        before, after = similarity[..., 1:-1:2], similarity[..., 2::2]  # of the sources, at 1, 3, 5...
        chosen = torch.maximum(before, after).argsort(dim=2, descending=True, stable=True)[..., : n - length]
        merged = torch.zeros_like(before, dtype=torch.bool).scatter(2, chosen, 1)
        none = torch.zeros_like(similarity[..., 1:], dtype=torch.bool)
        to_left, to_right = none.clone(), none.clone()
        to_left[..., 1::2], to_right[..., 1::2] = merged & (before >= after), merged & (before < after)
        gone = to_left | to_right
        place = (~gone).to(torch.int64).cumsum(dim=2) - 1  # a merged source has its left neighbour's
        stays = gone.to(torch.uint8).argsort(dim=2, stable=True)[..., :length]
    zero = x.new_zeros(())
    # The ends of a line do not wrap around: position 0 is a target, and the last one has no right neighbour.
    for sources, step in ((to_right, 1), (to_left, -1)):
        guest = torch.where(sources[..., None], x, zero).roll(step, dims=2)
        x = torch.where(guest.abs() > x.abs(), guest, x)
    return x.gather(2, stays[..., None].expand(-1, -1, -1, x.shape[3])), place + to_right
