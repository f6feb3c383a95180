"""Score-based pruning: keep the K tokens with the highest score, in their original order; drop the others.

Two scores from the attention A (heads h, queries q):

    received: s_i = Σ_h Σ_q A[h, q, i], PoWER-BERT's column sums (Goyal et al. 2020, arXiv 2001.08950, section 3.2)
    cls:      s_i = mean_h A[h, class, i], the class token's row (EViT without its fused token: Liang et al. 2022)

PoWER-BERT's code takes the mean over heads and excludes the diagonal; Token Pooling's text does not say. The mean gives
the same order as the sum; the diagonal is included here.
"""

from typing import Literal

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("score_pruning")
class ScorePruning(Downsampler):
    """Keep the tokens that receive the most attention."""

    paper = Paper(
        "PoWER-BERT: Accelerating BERT Inference via Progressive Word-vector Elimination", "ICML", 2020, "2001.08950"
    )

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
        return tokens.select(score.topk(keep).indices.sort().values)
