"""bookkeeping: the merged token gets the size of one patch."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_size")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        group = torch.arange(tokens.n_patches, device=tokens.x.device) * keep // tokens.n_patches
        merged = tokens.merge(group.expand(tokens.size.shape), keep)
        return merged.replace(size=torch.ones_like(merged.size))
