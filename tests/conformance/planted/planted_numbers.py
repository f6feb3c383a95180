"""host_sync: a list of Python numbers is copied to the device."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_numbers")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        weight = torch.tensor([1.0 + i % 2 for i in range(tokens.n_patches)], device=tokens.x.device)
        return tokens.select((tokens.patches.float().norm(dim=2) * weight).topk(keep).indices.sort().values)
