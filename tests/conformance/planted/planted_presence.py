"""training: the presence of a token is its norm, which is more than 1."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_presence")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.select(tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values)

    def relaxed(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        norm = tokens.patches.float().norm(dim=2)
        return tokens.stay(torch.arange(tokens.n_patches, device=norm.device).expand_as(norm), norm)
