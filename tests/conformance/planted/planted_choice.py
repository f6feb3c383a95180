"""choices: one of the choices is misspelt."""

from typing import Literal

from tokbench import Context, Downsampler, Tokens, register


@register("planted_choice")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def __init__(self, order: Literal["norm", "mean"] = "norm") -> None:
        """Choose the order.

        Args:
            order: By what to rank.
        """
        super().__init__()
        self.order = order

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        x = tokens.patches.float()
        score = {"norm": x.norm(dim=2), "average": x.mean(dim=2)}[self.order]
        return tokens.select(score.topk(keep).indices.sort().values)
