"""second_stage: the method needs a layout, but returns none."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_layout_needed")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        assert tokens.layout is not None
        return tokens.select(kept)
