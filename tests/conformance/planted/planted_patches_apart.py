"""second_stage: patches that share a token are split among several."""

import dataclasses

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_patches_apart")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        group = torch.arange(tokens.n_patches, device=tokens.x.device) * keep // tokens.n_patches
        merged = tokens.merge(group.expand(tokens.size.shape), keep)
        patch, patches = torch.arange(tokens.owner.shape[1], device=tokens.x.device), tokens.owner.shape[1]
        owner = patch % keep if tokens.layout else patch * keep // patches
        size = torch.full_like(merged.size, patches / keep)
        return dataclasses.replace(merged, owner=owner.expand(tokens.owner.shape), size=size)
