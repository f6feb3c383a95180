"""simulated_gpu: on a GPU, tokens are gathered by a product with a matrix, which counts."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_macs_on_gpu")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values
        chosen = tokens.select(kept)
        if not tokens.x.is_cuda:
            return chosen
        place = torch.arange(tokens.n_patches, device=kept.device)
        return chosen.replace(patches=(kept[..., None] == place).to(tokens.x.dtype) @ tokens.patches)
