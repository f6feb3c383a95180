"""counts: one more token is returned than count() says."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_count")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(min(keep + 1, tokens.n_patches)).indices.sort().values
        return tokens.select(kept)
