"""host_sync: indices go through a list."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_tolist")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        return tokens.select(torch.stack([torch.stack(list(row)) for row in kept]) if kept.tolist() else kept)
