"""Random selection: keep a uniformly random subset of the patch tokens, in their original order.

The baseline for every score (Marin et al. 2021, arXiv 2110.03860).
"""

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("random_selection")
class RandomSelection(Downsampler):
    """Keep a uniformly random subset of K tokens."""

    stochastic = True
    paper = Paper("Token Pooling in Vision Transformers", "WACV", 2023, "2110.03860")

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.select(context.noise.topk(keep).indices.sort().values)
