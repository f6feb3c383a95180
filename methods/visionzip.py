"""VisionZip: keep the tokens that the class token attends to, and merge the others (Yang et al. 2025).

With a_i = Σ_h A[h, class, i] (the mean over heads gives the same order), K tokens are returned, in two parts:

    dominant:   the K - C tokens with the highest a_i, unchanged
    contextual: of the R tokens left, in their order, C are targets, at the places 0, s, 2s, ..., s = ⌊R / C⌋. Every
                other one is assigned to the target whose key, mean over heads, has the highest cosine to its own:

                x_t + (mean of x_i over the i assigned to t)

The contextual token is a sum of two vectors, with up to twice the length of one. Confirmed in LightCompress
(ModelTC/llmc llmc/compression/token_reduction/visionzip.py), and the dominant tokens in the authors' demo as well
(dvlab-research/VisionZip llava/model/multimodal_encoder/clip_encoder.py). A fork (Fanziyang-v/VisionZip) takes the
plain mean of the target and its tokens: `merged=mean`. Used are 54 + 10, 108 + 20 and 162 + 30 tokens, so C = 10/64 K.

Decided here: the original acts once, on the output of the vision tower's last block but one, which is what LLaVA uses,
with that block's attention and keys. So at each reduction x is the output of the block, and attention and keys are this
block's. There is at least one contextual token, so nothing is dropped. Tokens count alike in the mean, whatever their
size. The dominant tokens come first, in their order, then the contextual ones.
"""

from typing import Literal

import torch
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, gather_rows, register


@register("visionzip")
class VisionZip(Downsampler):
    """Keep the tokens that the class token attends to, and merge the others into a few."""

    site = "after_block"
    needs = frozenset({"cls_attention", "keys"})
    paper = Paper("VisionZip: Longer is Better but Not Necessary in Vision Language Models", "CVPR", 2025, "2412.04467")

    def __init__(self, contextual: float = 0.15625, merged: Literal["sum", "mean"] = "sum") -> None:
        """Choose how many tokens are merged ones, and how they are merged.

        Args:
            contextual: C / K, the fraction of the returned tokens that are merged ones, above 0 and at most 1.
            merged: `sum`, the target plus the mean of its tokens; `mean`, the mean of the target and its tokens.

        Raises:
            ValueError: `contextual` is outside (0, 1].
        """
        super().__init__()
        if not 0 < contextual <= 1:
            raise ValueError(f"contextual={contextual}: must be above 0 and at most 1")
        self.contextual = contextual
        self.merged = merged

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        targets = max(1, round(self.contextual * keep))
        dominant = keep - targets
        with torch.no_grad():
            order = context.cls_attention.argsort(dim=1, descending=True, stable=True)
            kept, rest = order[:, :dominant].sort(dim=1).values, order[:, dominant:].sort(dim=1).values
            step = int(rest.shape[1]) // targets
            target = rest[:, : step * targets : step]
            keys = F.normalize(context.keys.to(torch.promote_types(tokens.x.dtype, torch.float32)), dim=2)
            nearest = (gather_rows(keys, rest) @ gather_rows(keys, target).mT).max(dim=2).indices
            group = torch.arange(keep, device=order.device).expand(order.shape[0], keep)
            owner = torch.zeros_like(order).scatter(1, rest, nearest + dominant)
            owner = owner.scatter(1, torch.cat([kept, target], dim=1), group)
            weight = torch.ones_like(tokens.size)
            if self.merged == "sum":
                weight = weight.scatter(1, target, 0)
        after = tokens.merge(owner, keep, weight)
        if self.merged == "mean":
            return after
        added = F.pad(gather_rows(tokens.patches, target), (0, 0, dominant, 0))
        return after.replace(patches=after.patches + added)
