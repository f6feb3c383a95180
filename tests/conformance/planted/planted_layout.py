"""shapes: the old layout is kept."""

import dataclasses

from tokbench import Context, Downsampler, Tokens, register


@register("planted_layout")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        return dataclasses.replace(tokens.select(kept), layout=tokens.layout)
