"""seeding: noise is read, but has no effect."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_stochastic_deaf")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    stochastic = True

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        score = tokens.patches.float().norm(dim=2) + 0 * context.noise
        return tokens.select(score.topk(keep).indices.sort().values)
