"""stateless: a running mean over all images is subtracted."""

from torch import Tensor

from tokbench import Context, Downsampler, Tokens, register


@register("planted_running_mean")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def __init__(self) -> None:
        """Start from nothing."""
        super().__init__()
        self.mean: Tensor | None = None

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        mean = tokens.patches.float().mean(dim=(0, 1))
        self.mean = mean if self.mean is None else 0.9 * self.mean + 0.1 * mean
        return tokens.select((tokens.patches.float() - self.mean).norm(dim=2).topk(keep).indices.sort().values)
