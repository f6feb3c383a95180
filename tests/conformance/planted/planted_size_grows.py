"""bookkeeping: every kept token gets the size of all dropped ones."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_size_grows")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        after = tokens.select(kept)
        gone = tokens.size.sum(dim=1, keepdim=True) - after.size.sum(dim=1, keepdim=True)
        return after.replace(size=after.size + 0.5 * gone)
