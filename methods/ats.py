"""Adaptive Token Sampling: sample tokens by their significance (Fayyaz et al. 2022, arXiv 2111.15667).

The significance of a token, and its cumulative distribution over the tokens in ascending order of S, are

    S_i = a_i |v_i| / Σ_j a_j |v_j|,    c_i = Σ_{j: S_j <= S_i} S_j,

with a the class token's attention (mean over heads, which scales all S equally) and v the values of all heads together.
Each of the points (2k - 1) / 2K, k = 1..K, selects the token whose c is nearest; a token selected several times is kept
once. So K is an upper bound, and an image whose significance is concentrated in few tokens keeps fewer. The order of
the tokens is kept. This is the variant `default`. Fine-tuned checkpoints of Haurum et al. 2023 need `haurum`, the
sampling of their code (JoakimHaurum/TokenReduction, models/ats.py), which differs in three ways:

    S_i ∝ Σ_h A[h, class, i] |v[h, i]|, norms head by head;    c_i = Σ_{j <= i} S_j, in the order of the image;
    the points are (2k - 1) / 2K for k = 1..K-1, the last one only where rounding puts it inside their range

The paper drops rows of the attention matrix, A_S V, before the projection; selecting rows after the attention gives the
same tokens, but also computes the dropped rows. The order of summation in the distribution is that of the authors'
code. That code places the points evenly from the smallest c to 1, uses at least 8 points, and uses as many points as
there were tokens initially in every block from the fourth on. Here K follows from the schedule's own previous K, not
from the number of tokens present, which depends on the other images of the batch.
"""

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register


@register("ats")
class AdaptiveTokenSampling(Downsampler):
    """Sample up to K tokens by significance, fewer if it is concentrated in few tokens."""

    needs = frozenset({"cls_attention", "values"})
    adaptive = True
    paper = Paper("Adaptive Token Sampling for Efficient Vision Transformers", "ECCV", 2022, "2111.15667")

    def __init__(self, variant: Literal["default", "haurum"] = "default") -> None:
        """Choose the sampling.

        Args:
            variant: `default`: of the authors; `haurum`: of the code of Haurum et al. 2023, for its checkpoints.
        """
        super().__init__()
        self.variant = variant
        if variant == "haurum":
            self.needs = frozenset({"attention", "values"})
        self.points: dict[int, int] = {}

    def setup(self, geometry: Geometry) -> None:
        self.points = dict(zip(geometry.depths, geometry.counts, strict=True))

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        """The maximum number of tokens returned."""
        return min(self.points.get(depth, keep), n_patches)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        with torch.no_grad():
            values = context.values.to(torch.promote_types(tokens.x.dtype, torch.float32))
            valid = torch.ones_like(tokens.size, dtype=torch.bool) if tokens.valid is None else tokens.valid
            points = self.points.get(context.depth, keep)
            if self.variant == "haurum":
                attention = context.attention[:, :, 0, tokens.n_prefix :]
                score = (attention * torch.linalg.vector_norm(values, dim=3)).sum(dim=1)
                kept = sample_in_order(score, valid, points)
            else:
                score = context.cls_attention * torch.linalg.vector_norm(values, dim=(1, 3))
                kept = sample(score, valid, points)
        most = self.count(keep, tokens.n_patches, context.depth, tokens.layout)
        # Images that keep fewer tokens are filled up with padding, which owns no patches.
        index = kept.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        after, valid = tokens.select(index), kept.gather(1, index)
        padding = ~valid.gather(1, after.owner.clamp_min(0))
        return dataclasses.replace(after, owner=after.owner.masked_fill(padding, -1), valid=valid)


def sample(score: Tensor, valid: Tensor, points: int) -> Tensor:
    """Select the tokens nearest to the sampling points.

    Args:
        score: (B, N), not negative, with any scale.
        valid: (B, N) bool; padding is never selected.
        points: K.

    Returns:
        (B, N) bool, True for selected tokens.
    """
    ascending, order = score.masked_fill(~valid, -1).sort(dim=1, stable=True)  # padding first
    cdf = ascending.clamp_min(0).cumsum(dim=1)
    cdf = cdf / cdf[:, -1:].clamp_min(torch.finfo(cdf.dtype).tiny)
    steps = torch.arange(points, device=cdf.device, dtype=cdf.dtype)
    point = ((2 * steps + 1) / (2 * points)).repeat(cdf.shape[0], 1)
    above = torch.searchsorted(cdf, point).clamp_max(int(cdf.shape[1]) - 1)
    below = torch.maximum(above - 1, (~valid).sum(dim=1, keepdim=True))
    nearer = point - cdf.gather(1, below) <= cdf.gather(1, above) - point
    taken = torch.zeros_like(order).scatter(1, torch.where(nearer, below, above), 1)
    return torch.zeros_like(order).scatter(1, order, taken) > 0


def sample_in_order(score: Tensor, valid: Tensor, points: int) -> Tensor:
    """Select the tokens nearest to the sampling points of a distribution over the tokens in their given order.

    Args:
        score: (B, N), not negative, with any scale.
        valid: (B, N) bool; padding is never selected.
        points: K.

    Returns:
        (B, N) bool, True for selected tokens.
    """
    score = score.masked_fill(~valid, 0)
    cdf = (score / (score.sum(dim=1, keepdim=True) + 1e-6)).cumsum(dim=1)
    # The last point is left out, or not, by the rounding of the range's length; one token needs one point.
    end = max((2 * points - 1) / (2 * points), 1 / points)
    point = torch.arange(1 / (2 * points), end, 1 / points, device=cdf.device, dtype=cdf.dtype)
    gap = (point[:, None] - cdf[:, None]).abs().masked_fill(~valid[:, None], torch.inf)  # (B, points, N)
    return torch.zeros_like(valid).scatter(1, gap.argmin(dim=2), True)
