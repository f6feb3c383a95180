"""runs: a weight is used that setup does not create."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_no_setup")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        score = tokens.patches @ self.direction
        return tokens.select(score.topk(keep).indices.sort().values)
