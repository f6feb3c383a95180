"""determinism: every call selects different tokens."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_counter")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def __init__(self) -> None:
        """Count the calls."""
        super().__init__()
        self.calls = 0

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        self.calls += 1
        return tokens.select(tokens.patches[..., self.calls % 4].float().topk(keep).indices.sort().values)
