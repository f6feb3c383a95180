"""EViT: keep the tokens the class token attends to, fuse the others into one (Liang et al. 2022, arXiv 2202.07800).

With a_i = mean_h A[h, class, i], the class token's attention after the softmax over all tokens,

    kept:  the K tokens with the highest a_i, in their original order
    fused: x_f = Σ_{i dropped} a_i x_i

The weights of the fused token are not renormalised. They sum to less than one, so its norm is small if the dropped
tokens receive little attention. The fused token comes last and in addition to the K kept tokens, so K+1 tokens are
returned. It represents all dropped patches, and later reductions treat it like any other of their N patch tokens.
"""

import torch

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("evit")
class EViT(Downsampler):
    """Keep the tokens that the class token attends to most, and fuse the others into one."""

    needs = frozenset({"cls_attention"})
    paper = Paper(
        "Not All Patches are What You Need: Expediting Vision Transformers via Token Reorganizations",
        "ICLR",
        2022,
        "2202.07800",
    )

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return keep + 1

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        a = context.cls_attention.to(torch.promote_types(tokens.x.dtype, torch.float32))
        attentive = a.argsort(dim=1, descending=True, stable=True)[:, :keep].sort().values
        kept = tokens.select(attentive)
        fused = a.scatter(1, attentive, 0)[:, None] @ tokens.patches.to(a.dtype)
        size = tokens.size.scatter(1, attentive, 0).sum(dim=1, keepdim=True)
        dropped = (tokens.owner >= 0) & (kept.owner < 0)
        return kept.append(fused, size, dropped.to(torch.int64) - 1)
