"""TPS: prune tokens, and squeeze each pruned one into the most similar kept one (Wei et al. 2023, arXiv 2304.10716).

The K tokens with the highest score are kept. With c_ij = cos(x_i, x_j) between a pruned i and a kept j, each pruned
token has the host j(i) = argmax_j c_ij, and

    x_j ← (e x_j + Σ_{i: j(i)=j} exp(c_ij) x_i) / (e + Σ_{i: j(i)=j} exp(c_ij)),    e = exp(1), for cos(x_j, x_j) = 1

The score is one of two:

    cls:       eTPS, the class token's attention to i, mean over heads, after the attention (EViT's)
    predictor: dTPS, the probability of being kept by DynamicViT's network, before the block

Confirmed in megvii-research/TPS-CVPR2023, torch_codebase/models/dynamic_vit.py and megengine_codebase/models/tps.py;
the first release's tps.py leaves out the normalisation of x. The public code has the squeezing of both variants, but
the pruning of dTPS only: eTPS's score is from the paper.

Decided here: of equally similar hosts the first takes the token, which the public code gives to all of them; sizes are
added, and do not enter the mean. The published training of dTPS masks attention like DynamicViT's, which is part of the
recipe of `tokbench finetune`. Here tokens are removed in training mode as at inference, and the kept ones have a factor
π_j / π_j = 1 whose gradient reaches the network (straight-through).
"""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from tokbench import Context, Downsampler, Geometry, KeepPredictor, Paper, Tokens, gather_rows, register


@register("tps")
class TPS(Downsampler):
    """Keep the tokens with the highest score, and merge each of the others into the most similar of them."""

    paper = Paper(
        "Joint Token Pruning and Squeezing Towards More Aggressive Compression of Vision Transformers",
        "CVPR",
        2023,
        "2304.10716",
    )

    def __init__(self, score: Literal["cls", "predictor"] = "cls") -> None:
        """Choose the score.

        Args:
            score: `cls`, the class token's attention (eTPS); `predictor`, a trained network's probability (dTPS).
        """
        super().__init__()
        self.score = score
        self.predictors = nn.ModuleList()
        if score == "cls":
            self.needs = frozenset({"cls_attention"})
        else:
            self.site = "before_block"
            self.trained = True

    def setup(self, geometry: Geometry) -> None:
        if self.score == "predictor":
            self.predictors = nn.ModuleList(KeepPredictor(geometry.dim) for _ in geometry.depths)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        by_network = self.score == "predictor"
        score = self.predictors[context.stage](tokens.patches) if by_network else context.cls_attention
        order = score.argsort(dim=1, descending=True, stable=True)
        kept, pruned = order[:, :keep].sort(dim=1).values, order[:, keep:]
        x = F.normalize(tokens.patches.to(torch.promote_types(tokens.x.dtype, torch.float32)), dim=2)
        cosine, host = (gather_rows(x, pruned) @ gather_rows(x, kept).mT).max(dim=2)
        owner = order.scatter(1, kept, torch.arange(keep, device=order.device).expand_as(kept))
        # All weights are divided by e, so that a kept token's is 1.
        weight = torch.ones_like(x[..., 0]).scatter(1, pruned, (cosine - 1).exp().to(x.dtype))
        result = tokens.merge(owner.scatter(1, pruned, host), keep, weight)
        if by_network and self.training:
            probability = score.gather(1, kept)
            factor = 1 + probability - probability.detach()
            result = result.replace(patches=result.patches * factor[..., None].to(tokens.x.dtype))
        return result
