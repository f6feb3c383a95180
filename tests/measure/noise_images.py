"""Noise, and batches of images of it."""

import torch
from torch import Tensor

from tokbench.data.loading import Batch


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batches_of(count: int, of: int = 4, seed: int = 0) -> list[Batch]:
    """Batches of `of` random images for the tiny ViT."""
    images = noise(count, 3, 32, 32, seed=seed)
    index = torch.arange(count)
    return [Batch(images[i : i + of], index[i : i + of], index[i : i + of]) for i in range(0, count, of)]
