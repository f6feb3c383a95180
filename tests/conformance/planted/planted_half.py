"""counts: at most half of the tokens are removed, but count() does not say so."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_half")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        most = max(keep, tokens.n_patches - tokens.n_patches // 2)
        kept = tokens.patches.float().norm(dim=2).topk(most).indices.sort().values
        return tokens.select(kept)
