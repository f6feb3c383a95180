"""declares: needs contains an unknown field."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_needs")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    needs = frozenset({"cls_attn"})

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        return tokens.select(kept)
