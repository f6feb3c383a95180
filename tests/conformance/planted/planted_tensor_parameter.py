"""declares: a parameter is a tensor, which no table can show."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_tensor_parameter")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def __init__(self, p: torch.Tensor | None = None) -> None:
        """Choose the norm.

        Args:
            p: Of the norm.
        """
        super().__init__()
        self.p = 2.0 if p is None else float(p)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(self.p, dim=2).topk(keep).indices.sort().values
        return tokens.select(kept)
