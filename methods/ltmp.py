"""LTMP: merge above a learned similarity, prune below a learned importance (Bonnaerens and Dambre 2023, 2307.10780).

    merge:  tokens at odd places are sources, those at even places targets; a source is merged into its most similar
            target (cosine of keys) where that similarity is above θ_m
    prune:  of what is left, drop the tokens of importance s_i = mean_{h,q} A[h, q, i] below θ_p

with two learned thresholds for each reduction, θ_m = 0.9 and θ_p = 0 at first. They alone decide, so how many tokens
stay differs from image to image, and K is not read: it names what training aims at, by a loss on the FLOPs that comes
with `tokbench finetune`. `count` promises no more than that none is added.

Decided here: a merged token is the mean by size and has its target's importance; attention does not see sizes, which
the paper's masked attention has no term for; the most important token always stays; queries that are padding have no
say in s. In training mode a threshold's decision x > θ has the gradient of sigmoid((x - θ) / 0.1) (straight-through),
but what goes is gone, where the paper's training masks attention and keeps all tokens.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register

TEMPERATURE = 0.1


@register("ltmp")
class LTMP(Downsampler):
    """Merge the tokens that are alike and drop those that matter little, by learned thresholds."""

    needs = frozenset({"received", "keys"})
    trained = True
    adaptive = True
    schedule = "every_block"
    paper = Paper("Learned Thresholds Token Merging and Pruning for Vision Transformers", "TMLR", 2023, "2307.10780")

    def __init__(self) -> None:
        """No parameters; the thresholds come with `setup`."""
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
        absorbed = torch.zeros_like(valid).scatter(1, source, merging)

        queries = tokens.n_prefix + valid.sum(dim=1, keepdim=True)
        s = context.received / (self.heads * queries)
        candidates = s.masked_fill(absorbed | ~valid, -torch.inf)
        staying = (candidates >= theta_p).scatter(1, candidates.argmax(dim=1, keepdim=True), 1)

        owner = (staying.to(torch.int64).cumsum(dim=1) - 1).masked_fill(~staying, -1)
        joined = torch.where(merging, owner.gather(1, 2 * partner), owner.gather(1, source))
        owner = owner.scatter(1, source, joined)
        weight = tokens.size.to(wide)
        if self.training:
            weight = weight.scatter(1, source, weight.gather(1, source) * passing(similarity - theta_m))
            tokens = tokens.replace(patches=tokens.patches * passing(s - theta_p)[..., None].to(tokens.x.dtype))
        result = tokens.merge(owner, n, weight)
        return dataclasses.replace(result, valid=result.size > 0)


def passing(margin: Tensor) -> Tensor:
    """1, with the gradient of a soft threshold."""
    soft = (margin / TEMPERATURE).sigmoid()
    return 1 + soft - soft.detach()
