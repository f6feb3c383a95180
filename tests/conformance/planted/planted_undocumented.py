"""documents: the class has no docstring."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_undocumented")
class Planted(Downsampler):
    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        return tokens.select(kept)
