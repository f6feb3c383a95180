"""noise: numbers come from torch's global generator."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_torch_random")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    stochastic = True

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        score = context.noise + torch.rand_like(context.noise)
        return tokens.select(score.topk(keep).indices.sort().values)
