"""Frequency-aware reduction: keep high-frequency tokens, average the others (Lee et al. 2025, arXiv 2511.21477).

Attention A is the sum of a low-pass part, the mean over all n tokens, and a high-pass part: A = 11ᵀ/n + A_HP. The score
of a token is its column in A_HP,

    Ã_k = mean_{h,q} (A[h, q, k] - 1/n),

which ranks tokens in the same order as the attention received. The tokens with the highest Ã are kept. The others, and
the DC tokens of earlier reductions, are averaged into w² DC tokens, one for each of w×w windows of the image.

The published method also learns weights ω, by which attention favours high-frequency and DC tokens, and is fine-tuned
with them. They are omitted here, so this is the training-free part. Decided here: the K tokens include the DC tokens
(the paper keeps ⌊τn⌋ tokens plus w²); a token that represents several patches is a DC token, and belongs to the window
that contains the centre of its patches; means are taken over image patches; the lowest token of each window always goes
into its DC token, so that no DC token is empty; if K < w², there is only one window.
"""

import torch
from torch import Tensor

from tokbench import Context, Downsampler, Paper, Tokens, group_sum, register


@register("frequency")
class Frequency(Downsampler):
    """Keep the high-frequency tokens, and average the others in a few windows."""

    needs = frozenset({"received"})
    paper = Paper("Frequency-Aware Token Reduction for Efficient Vision Transformer", "NeurIPS", 2025, "2511.21477")

    def __init__(self, windows: int = 2, local: int = 1) -> None:
        """Choose the windows; the defaults are the paper's w = 2, 1, 1 for three reductions.

        Args:
            windows: w, the number of windows along each side of the image in the first reductions; later ones use 1.
            local: The number of reductions, from the first, with w windows per side.

        Raises:
            ValueError: `windows` is less than 1, or `local` is negative.
        """
        super().__init__()
        if windows < 1 or local < 0:
            raise ValueError(f"windows={windows}, local={local}: must be at least 1 and 0")
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
    """(B, N), the index of the window, of down×across, that contains the centre of each token's patches."""
    h, w = tokens.grid
    patch = torch.arange(h * w, device=tokens.x.device)
    place = torch.stack([patch // w, patch % w, torch.ones_like(patch)], dim=1).to(torch.float32)
    row, column, patches = group_sum(place.expand(*tokens.owner.shape, 3), tokens.owner, tokens.n_patches).unbind(2)
    patches = patches.clamp_min(1)
    i = (row / patches * down / h).floor().to(torch.int64)
    j = (column / patches * across / w).floor().to(torch.int64)
    return i * across + j
