"""gradients: the weight is only used for ranking, so it gets no gradient."""

import torch

from tokbench import Context, Downsampler, Geometry, Tokens, register


@register("planted_untrainable")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    trained = True

    def setup(self, geometry: Geometry) -> None:
        self.direction = torch.nn.Parameter(torch.randn(geometry.dim))

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        score = tokens.patches @ self.direction
        return tokens.select(score.topk(keep).indices.sort().values)
