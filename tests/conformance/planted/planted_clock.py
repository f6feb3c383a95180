"""determinism: the result depends on the clock."""

import time

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_clock")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        now = time.perf_counter_ns() % 1_000_003  # all of it would be too large for a float to tell two calls apart
        angle = torch.arange(tokens.x.shape[2], device=tokens.x.device) * now
        score = tokens.patches.float() @ angle.sin()
        return tokens.select(score.topk(keep).indices.sort().values)
