"""devices: an index is created on the CPU."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_device")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        rank = tokens.patches.float().norm(dim=2) * torch.linspace(1, 2, tokens.n_patches)
        return tokens.select(rank.topk(keep).indices.sort().values)
