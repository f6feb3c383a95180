"""Random selection: keep a uniformly random subset of the patch tokens, in their order.

The baseline that every score has to beat (Marin et al. 2021, arXiv 2110.03860).
"""

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("random_selection")
class RandomSelection(Downsampler):
    """Keep K of N tokens, each subset equally likely."""

    stochastic = True
    paper = Paper("Token Pooling in Vision Transformers", "WACV", 2023, "2110.03860")

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.select(context.noise.topk(keep).indices.sort().values)
