"""RAJNI: keep more or fewer tokens as their importance is even or uneven (Raniwal, github.com/dRaniwal/RAJNI-ViT).

With a the class token's attention and V̄ the values, both the mean over heads, and z the standard score over tokens,

    s_i = a_i · sigmoid(z(m)_i),    m_i = mean_d |V̄_id - mean_j V̄_jd|
    D   = mean_i max(q - log s_i, 0) / |q|,    q = mean(log s) + 0.675 std(log s), near its 75th percentile

All N tokens are kept if D < τ; else the round(max(ρ, exp(-γ D)) N) tokens with the highest s, in their original order.
Only D decides, so the number of tokens left differs between images and K is ignored: `count` returns N, the maximum.

Confirmed in rajni/wrapper/{importance,attention,model}.py and README.md at commit 352f109. An earlier version, cc1f192,
took the exact percentile and spared blocks 10 and 11 where this one has τ. We found no paper; the title and the year
below are the repository's.

Decided here: the code averages D over the batch, so that an image's tokens depend on its neighbours; here each image
has its own D. The code drops tokens between this block's projection to q, k, v and its attention; here they are dropped
after it. Means over tokens are of patch tokens only, while the code counts the class token in those of V̄ and m.
The default τ and γ are those that the README gives for DeiT-S at its higher speed; the code's own are 0.1 and 2.5.
"""

import dataclasses

import torch
from torch import Tensor

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("rajni")
class RAJNI(Downsampler):
    """Keep the tokens that matter to the class token, fewer where importance is concentrated."""

    needs = frozenset({"cls_attention", "values"})
    adaptive = True
    ignores_keep = True
    schedule = "every_block"
    paper = Paper("Rank-Adaptive Jacobian Neuronal Importance for Vision Transformers", "GitHub", 2025)

    def __init__(self, tau: float = 0.07, gamma: float = 0.993, least: float = 0.6) -> None:
        """Choose how many tokens are kept.

        Args:
            tau: The dispersion D below which all tokens are kept.
            gamma: How fast the fraction of kept tokens falls with D.
            least: ρ, the smallest fraction that one reduction keeps.
        """
        super().__init__()
        if tau < 0 or gamma < 0:
            raise ValueError(f"tau={tau}, gamma={gamma}: must not be negative")
        if not 0 < least <= 1:
            raise ValueError(f"least={least}: must be above 0 and at most 1")
        self.tau, self.gamma, self.least = tau, gamma, least

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return n_patches

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        with torch.no_grad():
            present = torch.ones_like(tokens.size, dtype=torch.bool) if tokens.valid is None else tokens.valid
            score = importance(context.cls_attention, context.values, present)
            d = dispersion(score, present)
            fraction = torch.where(d < self.tau, 1.0, (-self.gamma * d).exp().clamp_min(self.least))
            most = (fraction * present.sum(dim=1, keepdim=True)).round().clamp_min(1)
            order = score.masked_fill(~present, -1).argsort(dim=1, descending=True, stable=True)
            kept = (order.argsort(dim=1) < most) & present
            index = kept.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        # Images that keep fewer tokens are filled up with padding, which owns no patches.
        after, valid = tokens.select(index), kept.gather(1, index)
        padding = ~valid.gather(1, after.owner.clamp_min(0))
        return dataclasses.replace(after, owner=after.owner.masked_fill(padding, -1), valid=valid)


def importance(attention: Tensor, values: Tensor, present: Tensor) -> Tensor:
    """s (B, N), from a (B, N) and values (B, H, N, Dh); present (B, N) is False at padding."""
    wide = torch.promote_types(values.dtype, torch.float32)
    v = values.to(wide).mean(dim=1)
    centre = (v * present[..., None]).sum(dim=1, keepdim=True) / present.sum(dim=1)[:, None, None]
    m = (v - centre).abs().mean(dim=2)
    deviation = m - mean(m, present)
    return attention.to(wide) * (deviation / (mean(deviation.square(), present).sqrt() + 1e-6)).sigmoid()


def dispersion(score: Tensor, present: Tensor) -> Tensor:
    """D (B, 1), from s (B, N)."""
    logs = (score + 1e-12).log()
    count = present.sum(dim=1, keepdim=True)
    deviation = logs - mean(logs, present)
    spread = (mean(deviation.square(), present) * count / (count - 1).clamp_min(1)).sqrt()  # of a sample
    q = mean(logs, present) + 0.675 * spread
    return mean((q - logs).clamp_min(0), present) / q.abs()


def mean(x: Tensor, present: Tensor) -> Tensor:
    """(B, 1), the mean of x (B, N) over the tokens that are present."""
    return (x * present).sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True)
