"""Zero-TPrune: drop tokens by importance and similarity, both from attention (Wang et al. 2024, arXiv 2305.17328).

A head's attention A is a graph in which each token votes for others. Its importance is the stationary vote

    I:   s ← Aᵀ s,  from s = 1, the class token √n times that;  s_i = √(mean_h s_hi²)

over the heads h whose scores have a variance over the patch tokens in [0.01, 0.7] (over all heads if none has). One
layer runs I′→S→I:

    I′:  rank the tokens by a first importance
    S:   of its less important half drop those most similar (cosine of keys) to a token of the other half
    I:   vote again among what is left, and keep the K most important

Not known of the paper and decided here: I′ is one round of voting; a fixed share of what must go is dropped in S;
tokens dropped there vote no longer and get no votes (A's rows are normalised anew); votes sum to what they began
with, so the mean score is about 1, the scale on which the bounds of the variance discriminate; shallow, middle and
deep are depths 0-3, 4-7 and 8 on, which fits the 12 blocks of a DeiT.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, gather_rows, register

VARIANCE = (0.01, 0.7)


@register("zero_tprune")
class ZeroTPrune(Downsampler):
    """Keep the tokens that matter to those that matter, without their doubles."""

    needs = frozenset({"attention", "keys"})
    paper = Paper(
        "Zero-TPrune: Zero-Shot Token Pruning through Leveraging of the Attention Graph in Pre-Trained Transformers",
        "CVPR",
        2024,
        "2305.17328",
    )

    def __init__(self, similar: float = 0.25, shallow: int = 30, middle: int = 5, deep: int = 1) -> None:
        """Choose how K splits between the two stages, and the rounds of voting.

        Args:
            similar: The share of the N-K tokens that goes for its similarity, in [0, 1]; at most half the tokens.
            shallow: Rounds of voting at depths 0-3 (the paper: 30 to 50).
            middle: Rounds at depths 4-7 (5 to 10).
            deep: Rounds from depth 8 on.

        Raises:
            ValueError: A share outside [0, 1], or less than one round.
        """
        super().__init__()
        if not 0 <= similar <= 1:
            raise ValueError(f"similar={similar}: a share, from 0 to 1")
        if min(shallow, middle, deep) < 1:
            raise ValueError(f"shallow={shallow}, middle={middle}, deep={deep}: at least one round of voting each")
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
            ahead, behind = order[:, : n - n // 2], order[:, n - n // 2 :]
            keys = F.normalize(context.keys.to(wide), dim=2)
            likeness = (gather_rows(keys, behind) @ gather_rows(keys, ahead).mT).amax(dim=2)
            doubles = descending(likeness)[:, : round(self.similar * (n - keep))]
            present = present.scatter(1, behind.gather(1, doubles), 0)
            score = importance(attention, present, rounds).masked_fill(present == 0, -1)
        return tokens.select(descending(score)[:, :keep].sort(dim=1).values)


def importance(attention: Tensor, present: Tensor, rounds: int) -> Tensor:
    """The votes that patch tokens end up with.

    Args:
        attention: (B, H, P+N, P+N), a row for each voter.
        present: (B, N), 1 for the patch tokens that take part, else 0.
        rounds: How often everyone votes.

    Returns:
        (B, N), 0 for those that take no part.
    """
    n = int(attention.shape[-1])
    prefix = n - int(present.shape[1])
    taking_part = F.pad(present, (prefix, 0), value=1.0)[:, None, None]
    # Rows of votes from the left: a column from the right takes several times as long on a CPU.
    given = (taking_part @ attention.mT).clamp_min(torch.finfo(attention.dtype).tiny)
    start = torch.ones(n, dtype=attention.dtype, device=attention.device)
    if prefix:
        start[0] = n**0.5
    votes = start * taking_part
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
    """(B, N) -> (B, N), positions from the highest score to the lowest; the earlier first where equal."""
    return scores.argsort(dim=1, descending=True, stable=True)
