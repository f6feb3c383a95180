"""host_sync: a number is assigned to one place, which was a copy to the GPU."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_one_place")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        weight = torch.ones(tokens.n_patches, device=tokens.x.device)
        weight[0] = 2.0
        return tokens.select((tokens.patches.float().norm(dim=2) * weight).topk(keep).indices.sort().values)
