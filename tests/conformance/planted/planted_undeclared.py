"""undeclared: the class token's attention is read, but not declared."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_undeclared")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.select(context.cls_attention.topk(keep).indices.sort().values)
