"""MCTF: fuse tokens that are similar, uninformative and small (Lee et al. 2024, arXiv 2403.10030).

The attraction between tokens i and j, with a_i the mean of column i of the attention and s_i the size, is

    W_ij = ((1 + cos(x_i, x_j)) / 2)^(1/τ_sim) · (1 / (a_i a_j))^(1/τ_info) · (1 / (s_i s_j))^(1/τ_size)

Only the order of the W_ij matters, so the logarithm is used. The paper divides each factor by its maximum, which does
not change the order; neither does using `received`, a multiple of a. Matching is bipartite and bidirectional: r/2
tokens of one half are fused into the other half, then r/2 tokens of that half into the remaining tokens of the first.
The second step uses the W from before the first one, as in the paper, to avoid computing it again. A fused token is the
mean weighted by a_i s_i.

The paper fuses tokens between a block's attention matrix and its product with the values, and continues the block with
the fused rows and columns (one-step-ahead attention). Here the same matrix scores the tokens, but the block completes
its attention first. Fusion is linear, so the result is the same except that the values are taken before instead of
after fusion; no attention is carried over, since the next block computes its own. x_i is the token at the site.
Decided here: the class token is never fused; if r is odd, the second step fuses one token more; proportional attention
is on, as in ToMe, on which MCTF is based (our sources do not say).
"""

import torch
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, bipartite_matching, register


@register("mctf")
class MCTF(Downsampler):
    """Fuse pairs of tokens by similarity, attention received and size, in both directions."""

    needs = frozenset({"received"})
    proportional = True
    schedule = "explicit(counts=180-164-148-132-116-100-84-68-52-36-20,at=1-2-3-4-5-6-7-8-9-10-11)"
    paper = Paper(
        "Multi-criteria Token Fusion with One-step-ahead Attention for Efficient Vision Transformers",
        "CVPR",
        2024,
        "2403.10030",
    )

    def __init__(
        self, tau_sim: float = 1.0, tau_info: float = 20.0, tau_size: float = 40.0, smallest: int = 10
    ) -> None:
        """Choose the weight of each criterion.

        Args:
            tau_sim: Temperature of the similarity; the higher, the lower its weight.
            tau_info: Temperature of the attention received.
            tau_size: Temperature of the size.
            smallest: The minimum number of patch tokens to leave.

        Raises:
            ValueError: A temperature is not positive, or `smallest` is less than 1.
        """
        super().__init__()
        if min(tau_sim, tau_info, tau_size) <= 0:
            raise ValueError(f"temperatures {tau_sim}, {tau_info}, {tau_size}: must be above 0")
        if smallest < 1:
            raise ValueError(f"smallest={smallest}: must be at least 1")
        self.tau_sim = tau_sim
        self.tau_info = tau_info
        self.tau_size = tau_size
        self.smallest = smallest

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return max(keep, min(self.smallest, n_patches))

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n = tokens.n_patches
        left = self.count(keep, n, context.depth, tokens.layout)
        r = n - left
        first, second = r // 2, r - r // 2
        with torch.no_grad():
            x = F.normalize(tokens.patches.to(torch.promote_types(tokens.x.dtype, torch.float32)), dim=2)
            # A softmax can underflow to 0, and a cosine can be slightly below -1 by rounding.
            eps = torch.finfo(x.dtype).eps
            received = context.received.clamp_min(eps)
            own = -(received.log() / self.tau_info + tokens.size.log() / self.tau_size)
            odd = torch.arange(1, n, 2, device=x.device)
            even = torch.arange(0, n, 2, device=x.device)
            similarity = ((1 + x[:, ::2] @ x[:, 1::2].mT) / 2).clamp_min(eps).log() / self.tau_sim
            attraction = similarity + own[:, ::2, None] + own[:, None, 1::2]
            into_odd = bipartite_matching(attraction, even, odd, n, first)
            # The unfused even tokens now come first, in their order, followed by the odd ones.
            free = (n + 1) // 2 - first
            unfused = into_odd[:, ::2].argsort(dim=1, stable=True)[:, :free]
            back = attraction.mT.gather(2, unfused[:, None].expand(-1, n // 2, -1))
            position = torch.arange(n - first, device=x.device)
            into_even = bipartite_matching(back, position[free:], position[:free], n - first, second)
            owner = into_even.gather(1, into_odd)
        return tokens.merge(owner, left, received * tokens.size)
