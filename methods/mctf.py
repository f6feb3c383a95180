"""MCTF: fuse tokens that are similar, uninformative and small (Lee et al. 2024, arXiv 2403.10030).

How much tokens i and j attract each other, with a_i the mean of column i of the attention and s_i the size:

    W_ij = ((1 + cos(x_i, x_j)) / 2)^(1/τ_sim) · (1 / (a_i a_j))^(1/τ_info) · (1 / (s_i s_j))^(1/τ_size)

Only the order of the W_ij counts, so their logarithm is taken; the paper's division of each factor by its maximum
leaves that order as it is, and so does `received`, a multiple of a. Matching is bipartite and goes both ways: r/2
tokens of one half are fused into the other half, then r/2 of that half into what the first has left. The second way
reads the W of before the first one, as the paper does to save computing it anew. A fused token is the mean weighted by
a_i s_i.

The paper fuses between a block's attention matrix and its product with the values, and lets that block run on with
the fused rows and columns (one-step-ahead attention). Here the same matrix judges the tokens, but its block finishes
its attention first: fusion is linear, so what comes out is the same but for values taken before rather than after
fusion; and no attention is carried on, the next block computes its own. x_i is the token as it stands at the site.
Ours: the class token is never fused, an odd r gives the second way one more, and proportional attention is on (ToMe's,
which MCTF builds on; our sources do not say).
"""

import torch
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, bipartite_matching, register


@register("mctf")
class MCTF(Downsampler):
    """Fuse pairs by similarity, attention received and size, in both directions."""

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
        """Choose how much each criterion counts.

        Args:
            tau_sim: Temperature of the similarity; the higher, the less it counts.
            tau_info: Temperature of the attention received.
            tau_size: Temperature of the size.
            smallest: How many patch tokens to leave at least.

        Raises:
            ValueError: A temperature that is not positive, or fewer than one token.
        """
        super().__init__()
        if min(tau_sim, tau_info, tau_size) <= 0:
            raise ValueError(f"temperatures {tau_sim}, {tau_info}, {tau_size}: all above 0")
        if smallest < 1:
            raise ValueError(f"smallest={smallest}: at least 1")
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
            # A softmax may underflow to 0, and a cosine may round to just below -1.
            eps = torch.finfo(x.dtype).eps
            received = context.received.clamp_min(eps)
            own = -(received.log() / self.tau_info + tokens.size.log() / self.tau_size)
            odd = torch.arange(1, n, 2, device=x.device)
            even = torch.arange(0, n, 2, device=x.device)
            alike = ((1 + x[:, ::2] @ x[:, 1::2].mT) / 2).clamp_min(eps).log() / self.tau_sim
            attraction = alike + own[:, ::2, None] + own[:, None, 1::2]
            into_odd = bipartite_matching(attraction, even, odd, n, first)
            # Of the even tokens the unfused now come first, in their order, and the odd ones follow.
            free = (n + 1) // 2 - first
            unfused = into_odd[:, ::2].argsort(dim=1, stable=True)[:, :free]
            back = attraction.mT.gather(2, unfused[:, None].expand(-1, n // 2, -1))
            place = torch.arange(n - first, device=x.device)
            into_even = bipartite_matching(back, place[free:], place[:free], n - first, second)
            owner = into_even.gather(1, into_odd)
        return tokens.merge(owner, left, received * tokens.size)
