"""The images that models are counted, timed and analysed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tokbench.data.loading import Batch, Unreadable, batches, check_unreadable
from tokbench.data.preprocessing import preprocessing_of
from tokbench.data.sets import ImageSet
from tokbench.vit.adapters import TimmViT

BATCH = 32  # images decoded at a time


def decoded(vit: TimmViT, images: ImageSet, batch_size: int = BATCH) -> list[Batch]:
    """The readable images of a set in batches, normalised for a model, in its dtype and on its device.

    Raises:
        UserError: None of the images can be read.
    """
    readable, lost = read_all(vit, images, batch_size)
    if not readable:
        check_unreadable(lost, len(images))
    return readable


def read_all(vit: TimmViT, images: ImageSet, batch_size: int = BATCH) -> tuple[list[Batch], list[Unreadable]]:
    """The readable images of a set as `decoded` gives them, and those that cannot be read."""
    preprocessing, weight = preprocessing_of(vit), vit.patch_embed.proj.weight
    read = list(batches(images, preprocessing.pixels, batch_size=batch_size, workers=0))
    readable = [
        replace(batch, images=preprocessing.normalise(batch.images, weight)) for batch, _ in read if len(batch.index)
    ]
    return readable, [lost for _, several in read for lost in several]


def sample_images(vit: TimmViT, images: ImageSet | None, count: int) -> Tensor:
    """Images for a model: real ones where there are data, repeated if too few, else noise from a fixed seed.

    Args:
        vit: The model.
        images: The image set, None without data.
        count: How many.

    Returns:
        (count, C, H, W) in the model's dtype and on its device.

    Raises:
        UserError: None of the images can be read.
    """
    projection = vit.patch_embed.proj
    if images is None:
        size = (count, projection.in_channels, *vit.patch_embed.img_size)
        return torch.randn(size, generator=torch.Generator().manual_seed(0)).to(projection.weight)
    found = torch.cat([batch.images for batch in decoded(vit, images.head(min(count, len(images))))])
    return found.repeat(-(-count // len(found)), 1, 1, 1)[:count]


# The compute and time of an adaptive method depend on the images, so it gets this many batches of them.
ADAPTIVE_BATCHES = 8


def enough_images(batch_sizes: Sequence[int], adaptive: bool, available: int | None) -> int:
    """How many images rows need: the largest batch, or several for adaptive methods; not more than there are real ones.

    Args:
        batch_sizes: Of the rows.
        adaptive: Whether one of them is adaptive.
        available: Images in the set; None without data.
    """
    most = max(batch_sizes)
    if available is not None and adaptive:
        most = max(most, min(ADAPTIVE_BATCHES * most, available))
    return most


def batches_for(images: Tensor, batch_size: int, *, adaptive: bool) -> list[Tensor]:
    """The batches that a row is counted and timed on: one, or several where its tokens depend on the images.

    Args:
        images: (n, C, H, W), at least a batch.
        batch_size: Images per batch.
        adaptive: Whether the number of tokens depends on the images.
    """
    count = min(ADAPTIVE_BATCHES, len(images) // batch_size) if adaptive else 1
    return [images[start * batch_size : (start + 1) * batch_size] for start in range(count)]


def batches_to_count(vit: TimmViT, images: ImageSet | None, batch_size: int, *, adaptive: bool) -> list[Tensor]:
    """The batches (B, C, H, W) that the MACs of a row are counted on.

    Args:
        vit: The model.
        images: The image set, None without data.
        batch_size: Of the row.
        adaptive: Whether the number of tokens depends on the images.
    """
    available = None if images is None else len(images)
    sample = sample_images(vit, images, enough_images([batch_size], adaptive, available))
    return batches_for(sample, batch_size, adaptive=adaptive)
