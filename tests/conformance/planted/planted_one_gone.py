"""full_range: ranking the dropped tokens needs at least two of them."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_one_gone")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        order = tokens.patches.float().norm(dim=2).argsort(dim=1, descending=True, stable=True)
        second = order[:, keep + 1 :].amin(dim=1, keepdim=True)  # empty where K=N-1
        kept = order[:, :keep].sort(dim=1).values
        return tokens.select(torch.where(second >= 0, kept, kept))
