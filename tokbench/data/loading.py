"""Streaming an image set in preprocessed batches.

Which images share a batch follows from their positions alone, not from which of them could be read: results are
compared image by image between runs, and a logit's last bits may depend on the batch around it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image, UnidentifiedImageError
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tokbench.data.errors import DataError
from tokbench.data.sets import ImageSet

__all__ = ["Batch", "Transform", "Unreadable", "batches", "check_unreadable", "evaluation_transform"]

Transform = Callable[[Image.Image], Tensor]

_UNREADABLE_ALLOWED = 0.01


@dataclass(frozen=True, eq=False)
class Batch:
    """Images ready for a model.

    Attributes:
        images: (B, 3, H, W) float32; (0, 3, 0, 0) where none of the batch's images could be read.
        index: (B,) int64, positions in the ImageSet.
        labels: (B,) int64, ImageNet-1k classes.
    """

    images: Tensor
    index: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be decoded, and why."""

    name: str
    reason: str


def evaluation_transform(vit: nn.Module) -> Transform:
    """Build timm's own evaluation preprocessing from the model's data config (size, crop, interpolation, mean, std)."""
    settings = resolve_data_config({}, model=vit)
    transform: Transform = create_transform(**settings)
    return transform


def batches(
    images: ImageSet,
    transform: Transform,
    *,
    batch_size: int,
    workers: int,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[tuple[Batch, tuple[Unreadable, ...]]]:
    """Decode, preprocess and batch the images of positions start to stop, in order.

    Batch i covers the positions [start + i·batch_size, start + (i+1)·batch_size). An image that cannot be read makes
    its own batch smaller and moves no other image.

    Args:
        images: The set.
        transform: From a PIL image (RGB) to a (3, H, W) tensor; picklable if `workers` > 0.
        batch_size: Positions a batch.
        workers: Processes that decode; 0 decodes in this one. Closing the iterator early ends them.
        start: First position.
        stop: One past the last position; None for the end.

    Yields:
        A batch, and what could not be read of its positions.
    """
    loader: DataLoader[_Sample] = DataLoader(
        _Samples(images, transform),
        batch_size=batch_size,
        sampler=range(len(images))[start:stop],
        num_workers=workers,
        collate_fn=_collate,
        # its own, for the loader draws a seed, and the caller's random numbers must not depend on that
        generator=torch.Generator(),
    )
    yield from loader


def check_unreadable(unreadable: Sequence[Unreadable], total: int) -> None:
    """Refuse a run that lost more than 1 % of its images.

    Args:
        unreadable: What could not be read.
        total: Images asked for, these included.

    Raises:
        DataError: More than 1 % could not be read; names the first of them.
    """
    if len(unreadable) <= _UNREADABLE_ALLOWED * total:
        return
    first = "; ".join(f"{item.name} ({item.reason})" for item in unreadable[:3])
    raise DataError(
        f"{len(unreadable)} of {total} images cannot be read, more than 1 %: {first}; get them again or remove them"
    )


@dataclass(frozen=True, eq=False)
class _Sample:
    index: int
    label: int
    image: Tensor | Unreadable


@dataclass(frozen=True, eq=False)
class _Samples(Dataset[_Sample]):
    images: ImageSet
    transform: Transform

    def __getitem__(self, index: int) -> _Sample:
        try:
            decoded = self.images.reader.read(index)
        except Exception as error:  # decoders raise nearly everything on a damaged file; each is told by name
            return _Sample(index, -1, Unreadable(self.images.names[index], _reason(error)))
        return _Sample(index, self.images.labels[index], self.transform(decoded))


def _collate(samples: Sequence[_Sample]) -> tuple[Batch, tuple[Unreadable, ...]]:
    unreadable = tuple(sample.image for sample in samples if isinstance(sample.image, Unreadable))
    read = [(sample, sample.image) for sample in samples if not isinstance(sample.image, Unreadable)]
    batch = Batch(
        images=torch.stack([image for _, image in read]) if read else torch.empty(0, 3, 0, 0),
        index=torch.tensor([sample.index for sample, _ in read], dtype=torch.int64),
        labels=torch.tensor([sample.label for sample, _ in read], dtype=torch.int64),
    )
    return batch, unreadable


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"  # Pillow's own message holds a memory address, which no two runs share
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__
