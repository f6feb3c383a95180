"""declares: the default of a parameter has another type than its annotation."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_default")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def __init__(self, p: int = 2.5) -> None:
        """Choose the norm.

        Args:
            p: Of the norm.
        """
        super().__init__()
        self.p = p

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(self.p, dim=2).topk(keep).indices.sort().values
        return tokens.select(kept)
