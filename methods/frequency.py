"""Frequency-aware reduction: keep what attention sharpens, average the rest (Lee et al. 2025, arXiv 2511.21477).

Attention A splits into a low-pass part, the mean over all n tokens, and the rest: A = 11ᵀ/n + A_HP. A token's share
in the high frequencies is its column of A_HP,

    Ã_k = mean_{h,q} (A[h, q, k] - 1/n),

which orders as the attention received does. The tokens of the highest Ã stay. The others, and the DC tokens of
earlier reductions, are averaged into w² DC tokens, one for each of w×w windows of the image.

The published method besides learns weights ω, by which attention favours high-frequency and DC tokens, and is
fine-tuned with them: left out here, so this is its training-free part. Decided here: the DC tokens count among the K
(the paper keeps ⌊τn⌋ tokens and w² more); a token that stands for several patches is a DC token, in the window of its
patches' centre; averages are over image patches; each window gives at least its lowest token, so that no DC token is
empty; where K < w² there is one window.
"""

import torch
from torch import Tensor

from tokbench import Context, Downsampler, Paper, Tokens, group_sum, register


@register("frequency")
class Frequency(Downsampler):
    """Keep the high-frequency tokens and a few means of the others."""

    needs = frozenset({"received"})
    paper = Paper("Frequency-Aware Token Reduction for Efficient Vision Transformer", "NeurIPS", 2025, "2511.21477")

    def __init__(self, windows: int = 2, local: int = 1) -> None:
        """Choose the DC tokens; the defaults are the paper's w = 2, 1, 1 for three reductions.

        Args:
            windows: w, windows along each side of the image in the first reductions; one window in the later ones.
            local: How many reductions, from the first, use w windows.

        Raises:
            ValueError: Less than one window, or a negative number of reductions.
        """
        super().__init__()
        if windows < 1 or local < 0:
            raise ValueError(f"windows={windows}, local={local}: at least 1 and 0")
        self.windows = windows
        self.local = local

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n, (h, w) = tokens.n_patches, tokens.grid
        side = self.windows if context.stage < self.local else 1
        down, across = (min(side, h), min(side, w)) if keep >= min(side, h) * min(side, w) else (1, 1)
        n_dc = down * across
        n_high = keep - n_dc
        window = windows_of(tokens, down, across)

        score = context.received.masked_fill(tokens.size > 1, -1)
        order = score.argsort(dim=1, descending=True, stable=True)
        rank = torch.zeros_like(order).scatter(1, order, torch.arange(n, device=order.device).expand_as(order))
        last = torch.zeros_like(rank[:, :n_dc]).scatter_reduce(1, window, rank, "amax")
        high = rank.masked_fill(rank == last.gather(1, window), n).argsort(dim=1, stable=True)[:, :n_high]
        high = high.sort(dim=1).values
        place = torch.arange(n_high, device=high.device).expand_as(high)
        return tokens.merge((n_high + window).scatter(1, high, place), keep)


def windows_of(tokens: Tokens, down: int, across: int) -> Tensor:
    """(B, N), the window of down×across that the centre of each token's patches is in."""
    h, w = tokens.grid
    patch = torch.arange(h * w, device=tokens.x.device)
    place = torch.stack([patch // w, patch % w, torch.ones_like(patch)], dim=1).to(torch.float32)
    row, column, patches = group_sum(place.expand(*tokens.owner.shape, 3), tokens.owner, tokens.n_patches).unbind(2)
    patches = patches.clamp_min(1)
    i = (row / patches * down / h).floor().to(torch.int64)
    j = (column / patches * across / w).floor().to(torch.int64)
    return i * across + j
