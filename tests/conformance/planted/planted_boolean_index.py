"""host_sync: the kept tokens are found by a mask."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_boolean_index")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        mask = torch.zeros_like(tokens.size, dtype=torch.bool).scatter(1, kept, 1)
        place = torch.arange(tokens.n_patches, device=tokens.x.device).expand_as(mask)
        return tokens.select(place[mask].view(-1, keep))
