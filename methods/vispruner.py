"""VisPruner: keep the tokens that the class token attends to, and of the others the distinct ones (Zhang et al. 2025).

With a_i = mean_h A[h, class, i], K tokens are kept in two parts:

    important: the ⌊ρK⌋ tokens with the highest a_i
    diverse:   the other N - ⌊ρK⌋, in the order of falling a_i, are thinned until K - ⌊ρK⌋ are left. In each round the
               tokens at odd places (1st, 3rd, ...) have as score the highest cosine of x to a token at an even place.
               The r with the highest scores are dropped, r being at most `step`. The next round has those that were
               scored, most similar first, and then the unscored ones.

Confirmed in the authors' code (Theia-4869/VisPruner llava/model/llava_arch.py), with its step 8; ρ = 0.5 is the value
of its examples. The kept tokens stay in their original order.

Decided here: the original acts once, on the output of the vision tower's last block but one, which is what LLaVA uses,
with that block's attention. So at each reduction x is the output of the block and A is its attention. The original
fails if the number of tokens in a round is odd; here the scored part has one token more. It also fails if r would
exceed the scored tokens; here no more than these are dropped.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, gather_rows, register


@register("vispruner")
class VisPruner(Downsampler):
    """Keep tokens by attention from the class token, and drop the most similar of the others."""

    site = "after_block"
    needs = frozenset({"cls_attention"})
    paper = Paper(
        "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs",
        "ICCV",
        2025,
        "2412.01818",
    )

    def __init__(self, important: float = 0.5, step: int = 8) -> None:
        """Choose how the kept tokens are divided, and how finely the others are thinned.

        Args:
            important: ρ, the fraction of the K tokens that is kept by attention, in [0, 1].
            step: The number of tokens that a round drops.

        Raises:
            ValueError: `important` is outside [0, 1], or `step` is less than 1.
        """
        super().__init__()
        if not 0 <= important <= 1:
            raise ValueError(f"important={important}: must be between 0 and 1")
        if step < 1:
            raise ValueError(f"step={step}: must be at least 1")
        self.important = important
        self.step = step

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        by_attention = int(self.important * keep)
        with torch.no_grad():
            x = F.normalize(tokens.patches.to(torch.promote_types(tokens.x.dtype, torch.float32)), dim=2)
            order = context.cls_attention.argsort(dim=1, descending=True, stable=True)
            distinct = thinned(x, order[:, by_attention:], keep - by_attention, self.step)
            kept = torch.cat([order[:, :by_attention], distinct], dim=1)
        return tokens.select(kept.sort(dim=1).values)


def thinned(x: Tensor, index: Tensor, count: int, step: int) -> Tensor:
    """Drop tokens that are similar to others, a few at a time.

    Args:
        x: (B, N, D) unit vectors.
        index: (B, R) the tokens to thin.
        count: How many of them to leave.
        step: The most to drop before similarities are looked at again.

    Returns:
        (B, count), some of `index`.
    """
    if count == 0:
        return index[:, :0]
    while index.shape[1] > count:
        scored, others = index[:, ::2], index[:, 1::2]
        excess = min(step, int(index.shape[1]) - count, int(scored.shape[1]))
        similarity = (gather_rows(x, scored) @ gather_rows(x, others).mT).amax(dim=2)
        distinct = similarity.argsort(dim=1, descending=True, stable=True)[:, excess:]
        index = torch.cat([scored.gather(1, distinct), others], dim=1)
    return index
