"""rotary_positions: the tokens that are kept get each other's rotary positions."""

import dataclasses

from tokbench import Context, Downsampler, Tokens, register


@register("planted_positions_mixed_up")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.select(tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values)
        return kept if kept.rotary is None else dataclasses.replace(kept, rotary=kept.rotary.flip(1))
