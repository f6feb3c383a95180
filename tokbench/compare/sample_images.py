"""The images that cells are counted and timed on."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from tokbench.compare.plan import Cell, Variant
from tokbench.data.loading import batches
from tokbench.data.preprocessing import preprocessing_of
from tokbench.data.sets import ImageSet
from tokbench.names import PLAIN
from tokbench.registry import method_class
from tokbench.vit.models import Pretrained

# How much compute and time an adaptive method takes depends on the images: it is shown so many batches of them.
ADAPTIVE_BATCHES = 8


def shown(cell: Cell, pictures: Tensor) -> list[Tensor]:
    """The batches that a cell is counted and timed on, of pictures (n, C, H, W): several where its tokens hang on them.

    Args:
        cell: The cell.
        pictures: At least a batch of it.
    """
    size = cell.batch_size
    count = min(ADAPTIVE_BATCHES, len(pictures) // size) if adaptive(cell.variant) else 1
    return [pictures[start * size : (start + 1) * size] for start in range(count)]


def pictures_for(cells: Collection[Cell], model: Pretrained, images: ImageSet | None) -> Tensor:
    """Enough images for the batches of every cell; no more real ones than there are, for repeated ones tell nothing."""
    most = max(cell.batch_size for cell in cells)
    if images is not None and any(adaptive(cell.variant) for cell in cells):
        most = max(most, min(ADAPTIVE_BATCHES * most, len(images)))
    return sample(model, images, most)


def adaptive(variant: Variant) -> bool:
    """Whether how many tokens stay differs from image to image."""
    return variant.method != PLAIN and method_class(variant.method).adaptive


def sample(model: Pretrained, images: ImageSet | None, count: int) -> Tensor:
    """`count` images for the model (count, C, H, W): real ones where there are data, else noise from a fixed seed."""
    projection = model.vit.patch_embed.proj
    if images is None:
        size = (count, projection.in_channels, *model.vit.patch_embed.img_size)
        return torch.randn(size, generator=torch.Generator().manual_seed(0)).to(projection.weight)
    few = images.head(min(count, len(images)))
    preprocessing = preprocessing_of(model.vit)
    read = [part.images for part, _ in batches(few, preprocessing.pixels, batch_size=32, workers=0)]
    pictures = preprocessing.normalise(torch.cat([part for part in read if len(part)]), projection.weight)
    return pictures.repeat(-(-count // len(pictures)), 1, 1, 1)[:count]
