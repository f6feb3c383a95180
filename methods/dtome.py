"""DToMe: merge pairs of tokens more similar than a threshold, one per layer (Wang et al. 2025, arXiv 2504.17040).

The tokens of the sequence are split alternately into A and B, as in ToMe; each a in A has its most similar b in B:

    m_a = max_b cos(k̄_a, k̄_b),    k̄ the keys of this block, mean over heads
    merged: every a with m_a > τ_l, into its b; vectors are means weighted by size, and sizes add up
    attention: proportional, as in ToMe

So simple images keep fewer tokens than complex ones. The thresholds τ_l come from unlabelled images. Of each batch of
B images, the r·B most similar pairs are merged, whichever images they are in, and the largest similarity that is left,
or 0 if that is negative, is the batch's threshold; τ_l is its mean over batches. Confirmed in the authors' code
(MikeWangWZHL/dymu, src/open_clip/tome.py, read in the copy eobo0530/vlm_optimization).

Decided here: r is what the schedule removes, N - K, so that K is the mean number of tokens left, and at most half of
the tokens, as in ToMe. The mean over batches is weighted by their images. Only τ_l limits what is merged in an image;
the public code has a limit for a whole batch, which would make an image depend on the others. Its order, the tokens of
A that are left and then B, is the same as here, but it keeps gaps where tokens were merged. The paper acts in every
block of other models than ours, so there is no published schedule.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench import Context, Downsampler, Geometry, Paper, Reduction, Tokens, register


@register("dtome")
class DToMe(Downsampler):
    """Merge pairs of tokens that are more similar than a calibrated threshold."""

    needs = frozenset({"keys"})
    proportional = True
    calibrated = True
    adaptive = True
    paper = Paper(
        "DyMU: Dynamic Merging and Virtual Unmerging for Efficient VLMs", "arXiv preprint", 2025, "2504.17040"
    )

    def __init__(self) -> None:
        """Create the method, which has no parameters; `calibrate` sets the thresholds."""
        super().__init__()
        self.removed: tuple[int, ...] = ()
        self.thresholds: tuple[float, ...] = ()

    def setup(self, geometry: Geometry) -> None:
        before = (math.prod(geometry.grid), *geometry.counts)
        self.removed = tuple(n - k for n, k in zip(before, geometry.counts, strict=False))
        self.thresholds = (0.0,) * len(geometry.counts)

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        """The mean over images."""
        return max(keep, n_patches - n_patches // 2)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        best, partner = best_matches(tokens, context)
        return merge_above(tokens, best, partner, self.thresholds[context.stage])

    def calibrate(self, run: Callable[[Reduction], None]) -> None:
        found: dict[int, list[tuple[float, int]]] = {}

        def merge_most_similar(tokens: Tokens, keep: int, context: Context) -> Tokens:
            best, partner = best_matches(tokens, context)
            descending = best.flatten().sort(descending=True).values
            first_left = min(self.removed[context.stage] * len(best), len(descending) - 1)
            threshold = max(float(descending[first_left]), 0.0)
            found.setdefault(context.stage, []).append((threshold, len(best)))
            return merge_above(tokens, best, partner, threshold)

        run(merge_most_similar)
        self.thresholds = tuple(
            sum(threshold * images for threshold, images in found[stage]) / sum(images for _, images in found[stage])
            if stage in found
            else math.inf  # the schedule removes nothing there
            for stage in range(len(self.removed))
        )

    # Not buffers: these would lose digits in half precision.
    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.thresholds, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.thresholds = tuple(state.tolist())


def best_matches(tokens: Tokens, context: Context) -> tuple[Tensor, Tensor]:
    """The highest similarity of each token of A, and the token of B that it belongs to: both (B, S); -inf: padding."""
    with torch.no_grad():
        keys = F.normalize(context.keys.to(torch.promote_types(context.keys.dtype, torch.float32)), dim=2)
        first = tokens.n_prefix % 2  # the first patch at an even position of the sequence
        similarity = keys[:, first::2] @ keys[:, 1 - first :: 2].mT
        if tokens.valid is not None:
            pairs = tokens.valid[:, first::2, None] & tokens.valid[:, None, 1 - first :: 2]
            similarity = similarity.masked_fill(~pairs, -torch.inf)
        best, partner = similarity.max(dim=2)
    return best, partner


def merge_above(tokens: Tokens, best: Tensor, partner: Tensor, threshold: float) -> Tokens:
    """Merge each token of A whose similarity is above the threshold; the rest of A comes first, then B."""
    n, first = tokens.n_patches, tokens.n_prefix % 2
    batch, sources = best.shape
    group = torch.arange(n, device=best.device).expand(batch, n)
    owner = torch.empty_like(tokens.size, dtype=torch.int64)
    owner[:, first::2] = torch.where(best > threshold, sources + partner, group[:, :sources])
    owner[:, 1 - first :: 2] = group[:, sources:]
    merged = tokens.merge(owner, n)
    return dataclasses.replace(merged, valid=merged.size > 0)
