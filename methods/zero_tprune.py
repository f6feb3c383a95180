"""Zero-TPrune: drop tokens by importance and similarity, both from attention (Wang et al. 2024, arXiv 2305.17328).

A head's attention A is a graph in which each token votes for others. The importance of a token is its stationary vote

    I:   s ← Aᵀ s,  starting with s = 1, for the class token √n;  s_i = √(mean_h s_hi²)

over the heads h whose scores have a variance over the patch tokens in [0.01, 0.7] (over all heads if there is none).
One layer runs I′→S→I:

    I′:  rank the tokens by a first importance
    S:   of the less important half, drop the tokens most similar (cosine of keys) to a token of the other half
    I:   vote again among the remaining tokens, and keep the K most important

The paper does not give the following details, decided here: I′ is one round of voting; a fixed fraction of the removed
tokens is dropped in S; these tokens no longer vote and get no votes (the rows of A are normalised again); the sum of
votes is constant, so the mean score is about 1, the scale for which the variance bounds are meant; shallow, middle and
deep blocks are depths 0-3, 4-7 and 8 on, which fits the 12 blocks of a DeiT.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, gather_rows, register

VARIANCE = (0.01, 0.7)  # heads with a score variance in this range are used


@register("zero_tprune")
class ZeroTPrune(Downsampler):
    """Keep tokens that important tokens attend to, and drop those that are similar to others."""

    needs = frozenset({"attention", "keys"})
    paper = Paper(
        "Zero-TPrune: Zero-Shot Token Pruning through Leveraging of the Attention Graph in Pre-Trained Transformers",
        "CVPR",
        2024,
        "2305.17328",
    )

    def __init__(self, similar: float = 0.25, shallow: int = 30, middle: int = 5, deep: int = 1) -> None:
        """Choose how the N-K removed tokens are divided between the two stages, and the rounds of voting.

        Args:
            similar: The fraction of the N-K tokens that is removed by similarity, in [0, 1]; at most half the tokens.
            shallow: Rounds of voting at depths 0-3 (the paper: 30 to 50).
            middle: Rounds at depths 4-7 (5 to 10).
            deep: Rounds from depth 8 on.

        Raises:
            ValueError: `similar` is outside [0, 1], or a number of rounds is less than 1.
        """
        super().__init__()
        if not 0 <= similar <= 1:
            raise ValueError(f"similar={similar}: must be between 0 and 1")
        if min(shallow, middle, deep) < 1:
            raise ValueError(f"shallow={shallow}, middle={middle}, deep={deep}: must be at least 1")
        self.similar = similar
        self.shallow = shallow
        self.middle = middle
        self.deep = deep

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n, wide = tokens.n_patches, torch.promote_types(tokens.x.dtype, torch.float32)
        rounds = self.shallow if context.depth < 4 else self.middle if context.depth < 8 else self.deep
        with torch.no_grad():
            attention = context.attention.to(wide)
            present = torch.ones_like(tokens.size, dtype=wide)
            order = descending(importance(attention, present, rounds=1))
            upper, lower = order[:, : n - n // 2], order[:, n - n // 2 :]
            keys = F.normalize(context.keys.to(wide), dim=2)
            similarity = (gather_rows(keys, lower) @ gather_rows(keys, upper).mT).amax(dim=2)
            redundant = descending(similarity)[:, : round(self.similar * (n - keep))]
            present = present.scatter(1, lower.gather(1, redundant), 0)
            score = importance(attention, present, rounds).masked_fill(present == 0, -1)
        return tokens.select(descending(score)[:, :keep].sort(dim=1).values)


def importance(attention: Tensor, present: Tensor, rounds: int) -> Tensor:
    """The importance of the patch tokens, by voting.

    Args:
        attention: (B, H, P+N, P+N), one row per voter.
        present: (B, N), 1 for patch tokens that take part, else 0.
        rounds: The number of rounds of voting.

    Returns:
        (B, N), 0 for tokens that do not take part.
    """
    n = int(attention.shape[-1])
    prefix = n - int(present.shape[1])
    taking_part = F.pad(present, (prefix, 0), value=1.0)[:, None, None]
    # A row vector times the matrix: on a CPU, the matrix times a column vector takes several times as long.
    given = (taking_part @ attention.mT).clamp_min(torch.finfo(attention.dtype).tiny)
    # Padded, since assigning a number to one place would stall a GPU in torch before 2.15.
    votes = F.pad(taking_part[..., 1:], (1, 0), value=n**0.5) if prefix else taking_part
    for _ in range(rounds):
        votes = taking_part * (votes / given @ attention)
    votes = votes[:, :, 0, prefix:]

    voters = present.sum(dim=1)[:, None, None]
    deviation = (votes - votes.sum(dim=2, keepdim=True) / voters) * present[:, None]
    variance = deviation.square().sum(dim=2, keepdim=True) / voters
    informative = (variance >= VARIANCE[0]) & (variance <= VARIANCE[1])
    informative = informative | ~informative.any(dim=1, keepdim=True)
    return ((votes.square() * informative).sum(dim=1) / informative.sum(dim=1)).sqrt()


def descending(scores: Tensor) -> Tensor:
    """(B, N) -> (B, N), positions in descending order of the score; the earlier first if equal."""
    return scores.argsort(dim=1, descending=True, stable=True)
