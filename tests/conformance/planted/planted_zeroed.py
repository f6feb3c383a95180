"""removes: tokens are set to zero, not removed."""

import dataclasses

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_zeroed")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return n_patches

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        mask = torch.zeros_like(tokens.size).scatter(1, kept, 1)
        owner = torch.where(mask.gather(1, tokens.owner.clamp_min(0)) > 0, tokens.owner, -1)
        return dataclasses.replace(tokens.replace(patches=tokens.patches * mask[..., None]), owner=owner, layout=None)
