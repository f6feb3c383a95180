"""Random points, Token Pooling of them, and its objective."""

from typing import Any

import torch
from torch import Tensor

from tokbench import Context, Tokens, create


def pool(points: Tensor, weight: Tensor, keep: int, **params: Any) -> Tokens:
    """One image's points (N, D), in their own precision, with the attention (N) they receive."""
    n, dim = points.shape
    x = torch.cat([points.new_zeros(1, dim), points])[None]
    context = Context(depth=0, depths=(0,), stage=0, noise=torch.zeros(1, n), received=weight[None])
    return create("token_pooling", **params)(Tokens.from_sequence(x, (1, n)), keep, context)


def cloud(n: int, dim: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, dim, generator=generator, dtype=dtype)
    return points, torch.rand(n, generator=generator, dtype=dtype) + 0.05


def objective(points: Tensor, weight: Tensor, centres: Tensor) -> float:
    """l = sum_i w_i min_j |f_i - c_j|^2."""
    return float(((points[:, None] - centres).square().sum(dim=2).min(dim=1).values * weight).sum())
