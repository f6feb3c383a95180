"""host_sync: the kept tokens are found by nonzero."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_nonzero")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        mask = torch.zeros_like(tokens.size).scatter(1, kept, 1)
        return tokens.select(mask.nonzero()[:, 1].view(-1, keep))
