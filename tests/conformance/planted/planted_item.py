"""host_sync: a threshold is read with item()."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_item")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        largest = tokens.patches.abs().max().item()
        return tokens.select(kept) if largest > 0 else tokens.select(kept.flip(1).sort().values)
