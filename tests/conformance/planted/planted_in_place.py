"""mutation: tokens are normalised in place."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_in_place")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        tokens.patches.div_(tokens.patches.norm(dim=2, keepdim=True).clamp_min(1e-6))
        return tokens.select(tokens.patches.float().amax(dim=2).topk(keep).indices.sort().values)
