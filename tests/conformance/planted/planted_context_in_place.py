"""mutation: the diagonal of the attention is set to zero in place."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_context_in_place")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    needs = frozenset({"attention"})

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        attention = context.attention
        attention.diagonal(dim1=2, dim2=3).zero_()
        score = attention[..., tokens.n_prefix :].float().sum(dim=(1, 2))
        return tokens.select(score.topk(keep).indices.sort().values)
