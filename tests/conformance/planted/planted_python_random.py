"""noise: numbers come from Python's global generator."""

import random

from tokbench import Context, Downsampler, Tokens, register


@register("planted_python_random")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    stochastic = True

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.select(((context.noise + random.random()) % 1).topk(keep).indices.sort().values)
