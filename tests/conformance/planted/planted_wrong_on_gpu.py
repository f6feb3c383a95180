"""simulated_gpu: a branch for GPUs counts a sum's rows once where they belong to one token."""

import torch

from tokbench import Context, Downsampler, Tokens, register


@register("planted_wrong_on_gpu")
class Planted(Downsampler):
    """Merge neighbours by sums, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        part = torch.arange(tokens.n_patches, device=tokens.x.device) * keep // tokens.n_patches
        part = part.expand(tokens.size.shape)
        merged = tokens.merge(part, keep)
        if not tokens.x.is_cuda:
            return merged
        image = torch.arange(len(part), device=part.device)[:, None].expand_as(part)
        sums = torch.zeros_like(merged.patches).index_put((image, part), tokens.patches, accumulate=False)
        return merged.replace(patches=sums / merged.size[..., None])
