"""Prune One More Token: drop tokens by attention and values, and keep their mean (Eliopoulos et al. 2025).

With the attention A between patch tokens and their values V (heads h, queries q, channels d),

    s_i = u_i / max_j u_j + softmax_i(Σ_d max_h V[h, i, d]),    u_i = Σ_q max_h A[h, q, i],

the K - 1 tokens with the highest score are kept, and the last of the K tokens is the mean of all the others.

Confirmed in the authors' code (nickjeliopoulos/PruneOneMoreToken pomt/timm_patch.py), which acts once, between the
attention and the MLP of block 3 counted from 0. How many tokens it removes there is measured on the user's device: the
mean is one of those left, as the code's count of N - R tokens, class token and mean included, says.

Decided here: max_j u_j is of the image; in the code it is of the batch. The softmax is over the patch tokens; in the
code the prefix tokens take part in it and are cut off afterwards, but a method is not given their values. The kept
tokens stay in their original order. Tokens count alike in the mean, whatever their size. For K = 1 the mean of all
tokens is left, where the code would remove nothing.
"""

import torch

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("pomt")
class PruneOneMoreToken(Downsampler):
    """Keep the tokens with the highest attention and values, and replace the others by their mean."""

    needs = frozenset({"attention", "values"})
    schedule = "stages(at=3)"
    paper = Paper(
        "Pruning One More Token is Enough: Leveraging Latency-Workload Non-Linearities for Vision Transformers on the "
        "Edge",
        "WACV",
        2025,
        "2407.05941",
    )

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        p, wide = tokens.n_prefix, torch.promote_types(tokens.x.dtype, torch.float32)
        with torch.no_grad():
            attended = context.attention[..., p:, p:].amax(dim=1).to(wide).sum(dim=1)
            attended = attended / attended.amax(dim=1, keepdim=True).clamp_min(torch.finfo(wide).tiny)
            magnitude = context.values.amax(dim=1).to(wide).sum(dim=2).softmax(dim=1)
            order = (attended + magnitude).argsort(dim=1, descending=True, stable=True)
            kept = order[:, : keep - 1].sort(dim=1).values
            place = torch.arange(keep - 1, device=kept.device).expand_as(kept)
            owner = torch.full_like(order, keep - 1).scatter(1, kept, place)
        return tokens.merge(owner, keep, torch.ones_like(tokens.size))
