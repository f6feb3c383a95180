"""declares: the site is invalid."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_site")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    site = "after_mlp"

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        return tokens.select(kept)
