"""LTMP: merge above a learned similarity, prune below a learned importance (Bonnaerens and Dambre 2023, 2307.10780).

    merge:  tokens at odd positions are sources, those at even positions targets; a source is merged into its most
            similar target (cosine of keys) if that similarity is above θ_m
    prune:  of the remaining tokens, drop those with importance s_i = mean_{h,q} A[h, q, i] below θ_p

with two learned thresholds per reduction, initially θ_m = 0.9 and θ_p = 0. Only the thresholds decide, so the number of
tokens left differs between images and K is ignored: it is the target of training, by a loss on the FLOPs that is part
of `tokbench finetune`. `count` therefore returns N, the upper bound.

Decided here: a merged token is the mean weighted by size and has its target's importance; attention does not include
sizes, since the paper's masked attention has no such term; the most important token is always kept; padding queries are
excluded from s. In training mode, a threshold decision x > θ has the gradient of sigmoid((x - θ) / 0.1)
(straight-through), but tokens are really removed, while the paper's training masks attention and keeps all tokens.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register

TEMPERATURE = 0.1


@register("ltmp")
class LTMP(Downsampler):
    """Merge similar tokens and drop unimportant ones, by learned thresholds."""

    needs = frozenset({"received", "keys"})
    trained = True
    adaptive = True
    ignores_keep = True
    schedule = "every_block"
    paper = Paper("Learned Thresholds Token Merging and Pruning for Vision Transformers", "TMLR", 2023, "2307.10780")

    def __init__(self) -> None:
        """Create the method, which has no parameters; `setup` creates the thresholds."""
        super().__init__()
        self.merge_thresholds = nn.Parameter(torch.empty(0))
        self.prune_thresholds = nn.Parameter(torch.empty(0))
        self.heads = 1

    def setup(self, geometry: Geometry) -> None:
        self.heads = geometry.heads
        self.merge_thresholds = nn.Parameter(torch.full((len(geometry.depths),), 0.9))
        self.prune_thresholds = nn.Parameter(torch.zeros(len(geometry.depths)))

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return n_patches

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n, wide = tokens.n_patches, torch.promote_types(tokens.x.dtype, torch.float32)
        valid = torch.ones_like(tokens.size, dtype=torch.bool) if tokens.valid is None else tokens.valid
        theta_m = self.merge_thresholds[context.stage].to(wide)
        theta_p = self.prune_thresholds[context.stage].to(wide)

        keys = F.normalize(context.keys.to(wide), dim=2)
        pairs = valid[:, 1::2, None] & valid[:, None, 0::2]
        similarity, partner = (keys[:, 1::2] @ keys[:, 0::2].mT).masked_fill(~pairs, -torch.inf).max(dim=2)
        merging = similarity > theta_m
        source = torch.arange(1, n, 2, device=merging.device).expand_as(merging)
        merged = torch.zeros_like(valid).scatter(1, source, merging)

        queries = tokens.n_prefix + valid.sum(dim=1, keepdim=True)
        s = context.received / (self.heads * queries)
        candidates = s.masked_fill(merged | ~valid, -torch.inf)
        kept = (candidates >= theta_p).scatter(1, candidates.argmax(dim=1, keepdim=True), 1)

        owner = (kept.to(torch.int64).cumsum(dim=1) - 1).masked_fill(~kept, -1)
        source_owner = torch.where(merging, owner.gather(1, 2 * partner), owner.gather(1, source))
        owner = owner.scatter(1, source, source_owner)
        weight = tokens.size.to(wide)
        if self.training:
            weight = weight.scatter(1, source, weight.gather(1, source) * straight_through(similarity - theta_m))
            tokens = tokens.replace(
                patches=tokens.patches * straight_through(s - theta_p)[..., None].to(tokens.x.dtype)
            )
        result = tokens.merge(owner, n, weight)
        return dataclasses.replace(result, valid=result.size > 0)


def straight_through(margin: Tensor) -> Tensor:
    """The value 1 with the gradient of a soft threshold."""
    soft = (margin / TEMPERATURE).sigmoid()
    return 1 + soft - soft.detach()
