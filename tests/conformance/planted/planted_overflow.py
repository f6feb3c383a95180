"""dtypes: squares are summed in half precision."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_overflow")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        after = tokens.select(kept)
        energy = after.patches.square().sum(dim=2, keepdim=True)
        return after.replace(patches=after.patches * (energy / energy))
