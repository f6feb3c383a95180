"""declares: a parameter has no default."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_undefaulted")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def __init__(self, p: float) -> None:
        """Choose the norm.

        Args:
            p: Of the norm.
        """
        super().__init__()
        self.p = p

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(self.p, dim=2).topk(keep).indices.sort().values
        return tokens.select(kept)
