"""Importance sampling: draw K tokens without replacement, each draw in proportion to the score of what is left.

With u_i uniform, the K smallest of -log(u_i) / s_i are such a draw (Efraimidis and Spirakis 2006): the arrival times
of N Poisson processes with rates s_i. A baseline of Marin et al. 2021 (arXiv 2110.03860), whose text defines the
score (attention received) but not the draw.
"""

from typing import Literal

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("importance_sampling")
class ImportanceSampling(Downsampler):
    """Keep a random subset in which important tokens are likelier."""

    stochastic = True
    paper = Paper("Token Pooling in Vision Transformers", "WACV", 2023, "2110.03860")

    def __init__(self, score: Literal["received", "cls"] = "received") -> None:
        """Choose the score.

        Args:
            score: `received`, the attention a token receives from all; `cls`, from the class token.
        """
        super().__init__()
        self.score = score
        self.needs = frozenset({"received" if score == "received" else "cls_attention"})

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        score = context.received if self.score == "received" else context.cls_attention
        arrival = -context.noise.log() / score
        return tokens.select(arrival.topk(keep, largest=False).indices.sort().values)
