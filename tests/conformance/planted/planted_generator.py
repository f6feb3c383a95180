"""batch_independence: the method's own generator depends on the position in the batch."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_generator")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        generator = torch.Generator().manual_seed(0)
        score = torch.rand(tokens.size.shape, generator=generator).to(tokens.x.device)
        return tokens.select(score.topk(keep).indices.sort().values)
