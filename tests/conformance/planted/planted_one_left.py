"""full_range: the sample standard deviation of a single token is undefined."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_one_left")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        after = tokens.select(kept)
        scale = after.patches.float().std(dim=1, keepdim=True)
        return after.replace(patches=after.patches * (scale / scale))
