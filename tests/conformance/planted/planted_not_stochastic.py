"""seeding: noise is read, but stochastic is not declared."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_not_stochastic")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.select(context.noise.topk(keep).indices.sort().values)
