"""DivPrune: keep the tokens that are farthest from each other (Alvar et al. 2025).

With the distance d_ij = 1 - cos(x_i, x_j) between patch tokens, K tokens are chosen one after the other so that the
smallest distance between two of them is large:

    first:  argmax_i min_{j≠i} d_ij, the token farthest from its nearest neighbour
    then:   argmax_i min_{j chosen} d_ij, until there are K

This is the greedy max-min diversity of the authors' code, confirmed in its copy in LightCompress
(llmc/compression/token_reduction/divprune.py); the chosen tokens keep their order. It takes K steps that wait for each
other. No attention is read, so the fused kernels stay.

Decided here: the original chooses once, among the vision tower's output after the projection into the language model,
one image at a time. Here x is the output of the block, which is what leaves the tower if the block is its last. On unit
vectors the squared Euclidean distance is 2 d, which gives the same order. A token is never chosen twice, as may happen
in the original if all the others equal a chosen one.
"""

import torch
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, farthest_first, register


@register("divprune")
class DivPrune(Downsampler):
    """Keep the tokens that are farthest from each other, by farthest-first selection."""

    site = "after_block"
    paper = Paper(
        "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models", "CVPR", 2025, "2503.02175"
    )

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        with torch.no_grad():
            x = F.normalize(tokens.patches.to(torch.promote_types(tokens.x.dtype, torch.float32)), dim=2)
            diverse = farthest_first(x, keep, first="isolated")
        return tokens.select(diverse.sort(dim=1).values)
