"""Representation Shift: keep the tokens that the MLP moves most (Choi et al. 2025, arXiv 2508.00367).

With x' the tokens after a block's attention, F(x') = MLP(LN(x')) and x = x' + F(x') the block's output,

    s_i = |F(x')_i - x'_i|₂

and the K tokens with the highest score are kept, in their original order. The score does not read attention, so every
block can use a fused attention kernel.

The authors' code, mlvlab/Representation-Shift, is not among the public code that we could read. Two accounts of the
paper confirm the rule: github.com/zhaoyang97/Paper-Notes-en, docs/ICCV2025/model_compression/representation_shift_*.md,
gives the formula, the L2 distance and that the lowest scores are dropped; emergentmind.com/papers/2508.00367 gives the
general s = D(F(x), x). Published for DeiT: a fifth of the tokens is dropped after blocks 0, 3 and 6.

Decided here: the distance is to F(x') alone, as in the formula, and not to the block's output, which would make it
|F(x')|; F includes LayerScale where a model has it; the prefix tokens always stay.
"""

import torch

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("representation_shift")
class RepresentationShift(Downsampler):
    """Keep the tokens that the MLP moves most; attention is not read."""

    site = "after_block"
    sites = ("before_block", "after_block")  # where the last layer is an MLP
    needs = frozenset({"update"})
    schedule = "stages(at=0-3-6)"
    paper = Paper("Representation Shift: Unifying Token Compression with FlashAttention", "ICCV", 2025, "2508.00367")

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        wide = torch.promote_types(tokens.x.dtype, torch.float32)
        update = context.update.to(wide)
        before = tokens.patches.to(wide) - update
        score = (update - before).norm(dim=2)
        return tokens.select(score.argsort(dim=1, descending=True, stable=True)[:, :keep].sort().values)
