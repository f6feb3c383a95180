"""SAINT: drop the tokens that are similar to many others (Jeddi et al. 2025, arXiv 2503.11549).

The patch tokens are split alternately into E (even positions) and O (odd positions). With S_ij the cosine of the keys
k̄ = mean_h K[h] of i in E and j in O, and c_i = #{j: S_ij ≥ τ} the neighbours of i,

    score: c_i exp(γ (mean_{j: S_ij ≥ τ} S_ij - τ)) if c_i > 0, else mean_j S_ij
    drop:  the r tokens of E with the highest scores
    votes: r = #{i: c_i ≥ 5}, as published

Confirmed in ArmenJeddi/saint, ViT/saint/prune.py; its examples prune in the first half of the blocks with τ = 0.75,
γ = 10 and 5 votes. The result contains what is left of E from the highest score to the lowest, then O: the next split
depends on this order. There, r is the mean over the batch, so that an image's tokens depend on the others'.

Decided here: r is N - K by default, so that the schedule decides the cost as in the other methods; at most all of E is
dropped. With `rate=votes`, K is ignored and each image has its own r, so the method is adaptive and `count` returns N,
the upper bound; padding neither votes nor is voted on.
"""

import dataclasses
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("saint")
class SAINT(Downsampler):
    """Drop the tokens that have the most and the closest neighbours."""

    needs = frozenset({"keys"})
    schedule = "stages(at=0-1-2-3-4-5)"
    paper = Paper("Similarity-Aware Token Pruning: Your VLM but Faster", "arXiv", 2025, "2503.11549")

    def __init__(
        self,
        rate: Literal["schedule", "votes"] = "schedule",
        threshold: float = 0.75,
        votes: int = 5,
        gamma: float = 10.0,
    ) -> None:
        """Choose how many tokens to drop, and what counts as similar.

        Args:
            rate: What decides how many tokens to drop: the `schedule`, or the `votes` of each image's tokens.
            threshold: τ, the cosine from which on two tokens are neighbours.
            votes: How many neighbours make a token count for `rate=votes`.
            gamma: γ, the weight of the neighbours' similarity against their number.

        Raises:
            ValueError: `threshold` is not a cosine, or `votes` is less than 1.
        """
        super().__init__()
        if not -1 <= threshold <= 1:
            raise ValueError(f"threshold={threshold}: must be a cosine, from -1 to 1")
        if votes < 1:
            raise ValueError(f"votes={votes}: must be at least 1")
        self.threshold = threshold
        self.votes = votes
        self.gamma = gamma
        self.adaptive = self.ignores_keep = rate == "votes"

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return n_patches if self.adaptive else max(keep, n_patches // 2)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n = tokens.n_patches
        count = self.count(keep, n, context.depth, tokens.layout)
        with torch.no_grad():
            valid = torch.ones_like(tokens.size, dtype=torch.bool) if tokens.valid is None else tokens.valid
            neighbours, score = self._scored(context.keys, valid)
            dropped = (neighbours >= self.votes).sum(dim=1, keepdim=True) if self.adaptive else n - count
            position = torch.arange(n, device=score.device)
            order = score.argsort(dim=1, descending=True, stable=True)
            left = (position[: order.shape[1]] >= dropped) & valid[:, ::2].gather(1, order)
            kept = torch.cat([left, valid[:, 1::2]], dim=1)
            token = torch.cat([2 * order, position[1::2].expand(len(order), -1)], dim=1)
            first = kept.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
            index, kept = token.gather(1, first), kept.gather(1, first)
        after = tokens.select(index)
        if not self.adaptive:
            return after
        # Images that keep fewer tokens are filled up with padding, which owns no patches.
        padding = ~kept.gather(1, after.owner.clamp_min(0))
        return dataclasses.replace(after, owner=after.owner.masked_fill(padding, -1), valid=kept)

    def _scored(self, keys: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The number of neighbours of each even token, and its score; padding has none, and comes last."""
        k = F.normalize(keys.to(torch.promote_types(keys.dtype, torch.float32)), dim=2)
        similarity = k[:, ::2] @ k[:, 1::2].mT
        possible = valid[:, ::2, None] & valid[:, None, 1::2]
        near = (similarity >= self.threshold) & possible
        neighbours = near.sum(dim=2)
        closeness = (similarity * near).sum(dim=2) / neighbours.clamp_min(1)
        mean = (similarity * possible).sum(dim=2) / possible.sum(dim=2).clamp_min(1)
        score = torch.where(neighbours > 0, neighbours * (self.gamma * (closeness - self.threshold)).exp(), mean)
        return neighbours, score.masked_fill(~valid[:, ::2], -torch.inf)
