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

Training removes tokens with eTPS, as evaluation does. With dTPS it keeps all tokens, as DynamicViT's: decisions d are
drawn by Gumbel-softmax (straight-through), the presence of a token becomes p_i ← p_i d_i, and the loss on the kept
fraction is DynamicViT's. Every present token i has a host j(i) ≠ i among the kept ones, and its weight in the formula
above is p_i (1 - p_i d_i) exp(c_ij), with p before the reduction: 0 if it is kept, but with a gradient. The paper's
distillation term is part of the recipe.

Decided here: of equally similar hosts the first takes the token, which the public code gives to all of them; sizes are
added, and do not enter the mean; in training, the present token with the highest sample always stays.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokbench import (
    Context,
    Downsampler,
    Geometry,
    KeepPredictor,
    Paper,
    Tokens,
    gather_rows,
    group_sum,
    kept_fraction_loss,
    register,
)


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
        self.targets: tuple[int, ...] = ()
        if score == "cls":
            self.needs = frozenset({"cls_attention"})
        else:
            self.site = "before_block"
            self.trained = True

    def setup(self, geometry: Geometry) -> None:
        if self.score == "predictor":
            self.predictors = nn.ModuleList(KeepPredictor(geometry.dim) for _ in geometry.depths)
            self.targets = geometry.targets

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        by_network = self.score == "predictor"
        score = self.predictors[context.stage](tokens.patches) if by_network else context.cls_attention
        order = score.argsort(dim=1, descending=True, stable=True)
        kept, pruned = order[:, :keep].sort(dim=1).values, order[:, keep:]
        x = _directions(tokens)
        cosine, host = (gather_rows(x, pruned) @ gather_rows(x, kept).mT).max(dim=2)
        owner = order.scatter(1, kept, torch.arange(keep, device=order.device).expand_as(kept))
        # All weights are divided by e, so that a kept token's is 1.
        weight = torch.ones_like(x[..., 0]).scatter(1, pruned, (cosine - 1).exp().to(x.dtype))
        return tokens.merge(owner.scatter(1, pruned, host), keep, weight)

    def relaxed(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        if self.score == "cls":
            return self(tokens, keep, context)
        predictor, n = self.predictors[context.stage], tokens.n_patches
        assert isinstance(predictor, KeepPredictor)
        presence = predictor.sample(tokens.patches, tokens.presence)
        before = torch.ones_like(presence) if tokens.presence is None else tokens.presence
        kept = presence > 0.5
        x = _directions(tokens)
        no_host = ~kept[:, None] | torch.eye(n, dtype=torch.bool, device=kept.device)
        cosine, host = (x @ x.mT).masked_fill(no_host, -torch.inf).max(dim=2)
        weight = (before * (1 - presence) * (cosine - 1).exp())[..., None]
        patches = tokens.patches.to(weight.dtype)
        squeezed = (patches + group_sum(weight * patches, host, n)) / (1 + group_sum(weight, host, n))
        owner = torch.where(kept, torch.arange(n, device=kept.device), host).masked_fill(before < 0.5, -1)
        return tokens.stay(owner, presence).replace(patches=squeezed)

    def loss(self, after: Sequence[Tokens]) -> Tensor | None:
        return kept_fraction_loss(after, self.targets) if self.score == "predictor" else None


def _directions(tokens: Tokens) -> Tensor:
    """The patch tokens divided by their norms, in float32 or wider."""
    return F.normalize(tokens.patches.to(torch.promote_types(tokens.x.dtype, torch.float32)), dim=2)
