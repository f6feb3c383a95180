"""state_dict: random numbers of setup are neither a parameter nor a buffer."""

import torch

from tokbench import Context, Downsampler, Geometry, Tokens, register


@register("planted_hidden_state")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def setup(self, geometry: Geometry) -> None:
        self.direction = torch.randn(geometry.dim)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        score = tokens.patches.float() @ self.direction.to(tokens.x.device)
        return tokens.select(score.topk(keep).indices.sort().values)
