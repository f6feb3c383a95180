"""noise: numbers come from numpy's global generator."""

import numpy as np

from tokbench import Context, Downsampler, Tokens, register


@register("planted_numpy_random")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    stochastic = True

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        shift = float(np.random.rand())
        return tokens.select(((context.noise + shift) % 1).topk(keep).indices.sort().values)
