"""bookkeeping: owner refers to the old tokens."""

import dataclasses

from tokbench import Context, Downsampler, Tokens, register


@register("planted_owner")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        return dataclasses.replace(tokens.select(kept), owner=tokens.owner)
