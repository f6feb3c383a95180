"""shapes: a method that is not adaptive returns a mask."""

import dataclasses

from tokbench import Context, Downsampler, Tokens, register


@register("planted_masked")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        after = tokens.select(kept)
        return dataclasses.replace(after, valid=after.size > 0)
