"""Importance sampling: draw K tokens without replacement, with probability proportional to the score at each draw.

With u_i uniform, the tokens with the K smallest -log(u_i) / s_i are such a sample (Efraimidis and Spirakis 2006); these
are the arrival times of N Poisson processes with rates s_i. A baseline of Marin et al. 2021 (arXiv 2110.03860), whose
text defines the score (attention received) but not the sampling procedure.
"""

from typing import Literal

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("importance_sampling")
class ImportanceSampling(Downsampler):
    """Keep a random subset in which tokens with a high score are more likely."""

    stochastic = True
    paper = Paper("Token Pooling in Vision Transformers", "WACV", 2023, "2110.03860")

    def __init__(self, score: Literal["received", "cls"] = "received") -> None:
        """Choose the score.

        Args:
            score: `received`, the attention that a token receives from all tokens; `cls`, from the class token.
        """
        super().__init__()
        self.score = score
        self.needs = frozenset({"received" if score == "received" else "cls_attention"})

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        score = context.received if self.score == "received" else context.cls_attention
        arrival = -context.noise.log() / score
        return tokens.select(arrival.topk(keep, largest=False).indices.sort().values)
