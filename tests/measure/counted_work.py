"""Models that do a known amount of work."""

import torch
from torch import Tensor

N, C, HEADS, DEPTH, CLASSES = 16, 32, 2, 4, 10  # of the fixture `tiny_vit`
K = 8


def image(seed: int = 0) -> Tensor:
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def by_hand(attention: list[int], mlp: list[int]) -> int:
    """The plain model's MACs from n at each attention and each MLP."""
    embedding, head = N * 3 * 8 * 8 * C, C * CLASSES
    return embedding + head + sum(4 * n * C * C + 2 * n * n * C for n in attention) + sum(8 * n * C * C for n in mlp)
