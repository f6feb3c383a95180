"""full_range: zero is divided by zero."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_nan")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        after = tokens.select(kept)
        rest = tokens.patches.float().sum(dim=1, keepdim=True) - after.patches.float().sum(dim=1, keepdim=True)
        return after.replace(patches=after.patches + 0 * (rest / (tokens.n_patches - 1 - keep)))
