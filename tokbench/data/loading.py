"""Streaming an image set in preprocessed batches.

Which images share a batch depends only on their positions, not on which of them could be read: results are compared
image by image between runs, and the last bits of a logit may depend on the other images of the batch.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tokbench.data.cache import PixelCache
from tokbench.data.errors import DataError
from tokbench.data.sets import ImageSet

__all__ = ["Batch", "Transform", "Unreadable", "batches", "check_unreadable"]

Transform = Callable[[Image.Image], Tensor]

_MAX_UNREADABLE = 0.01
_PREFETCH = 2  # batches that a worker decodes ahead, PyTorch's default


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of decoded images.

    Attributes:
        images: (B, C, H, W) pixels, uint8; (0, 3, 0, 0) if none of the batch's images could be read.
        index: (B,) int64, positions in the ImageSet.
        labels: (B,) int64, ImageNet-1k classes.
    """

    images: Tensor
    index: Tensor
    labels: Tensor

    def pin_memory(self) -> "Batch":
        """The same batch with its images in pinned memory; called by torch's loader."""
        return replace(self, images=self.images.pin_memory())


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be decoded or resized, and the reason."""

    name: str
    reason: str


def batches(
    images: ImageSet,
    transform: Transform,
    *,
    batch_size: int,
    workers: int,
    start: int = 0,
    stop: int | None = None,
    waiting: int | None = None,
    cache: PixelCache | None = None,
    pin_memory: bool = False,
    niceness: int = 0,
) -> Iterator[tuple[Batch, tuple[Unreadable, ...]]]:
    """Decode, preprocess and batch the images at positions start to stop, in order.

    Batch i covers the positions [start + i·batch_size, start + (i+1)·batch_size). An unreadable image makes its own
    batch smaller and does not move other images.

    Args:
        images: The set.
        transform: From a PIL image to its pixels (C, H, W); picklable if `workers` > 0.
        batch_size: Positions per batch.
        workers: Number of decoding processes; 0 decodes in this process. Closing the iterator early ends them.
        start: First position.
        stop: One past the last position; None for the end.
        waiting: Upper limit of decoded batches that wait to be used; limits the workers too. None for no limit.
        cache: Where preprocessed images are stored and looked up first.
        pin_memory: Whether to put batches into pinned memory.
        niceness: Niceness added to the workers (`os.nice`, where the system has it), so that they do not slow down a
            model that runs on the same cores.

    Yields:
        A batch, and the images at its positions that could not be read.

    Raises:
        DataError: The cache cannot be written.
    """
    if waiting is not None:
        workers = min(workers, waiting)
    prefetch = _PREFETCH if waiting is None or not workers else min(_PREFETCH, waiting // workers)
    loader: DataLoader[_Sample] = DataLoader(
        _Samples(images, transform, cache),
        batch_size=batch_size,
        sampler=range(len(images))[start:stop],
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=pin_memory,
        collate_fn=_collate,
        worker_init_fn=partial(_lower_priority, niceness),
        # a separate generator, because the loader draws a seed and must not change the caller's random numbers
        generator=torch.Generator(),
    )
    for batch, unreadable, errors in loader:
        if errors:
            raise errors[0]
        yield batch, unreadable


def check_unreadable(unreadable: Sequence[Unreadable], total: int) -> None:
    """Check that at most 1 % of the images are unreadable.

    Args:
        unreadable: The images that could not be read.
        total: Number of images, including the unreadable ones.

    Raises:
        DataError: More than 1 % could not be read; the message names the first of them.
    """
    if len(unreadable) <= _MAX_UNREADABLE * total:
        return
    first = "; ".join(f"{item.name} ({item.reason})" for item in unreadable[:3])
    raise DataError(
        f"{len(unreadable)} of {total} images cannot be read, more than 1 %: {first}; replace or remove them"
    )


@dataclass(frozen=True, eq=False)
class _Sample:
    index: int
    label: int
    image: Tensor | Unreadable | DataError


@dataclass(frozen=True, eq=False)
class _Samples(Dataset[_Sample]):
    images: ImageSet
    transform: Transform
    cache: PixelCache | None

    def __getitem__(self, index: int) -> _Sample:
        label = self.images.labels[index]
        try:
            return _Sample(index, label, self._pixels(index))
        except DataError as error:  # of the cache; raised in a worker process, its message would contain the traceback
            return _Sample(index, label, error)
        except Exception as error:  # decoding and resizing raise almost any exception; each is reported by name
            return _Sample(index, label, Unreadable(self.images.names[index], _reason(error)))

    def _pixels(self, index: int) -> Tensor:
        reader = self.images.reader
        if self.cache is None:
            return self.transform(reader.read(index))
        content = reader.content(index)
        cached = self.cache.get(content)
        if cached is not None:
            return cached
        pixels = self.transform(reader.read(index))
        self.cache.put(content, pixels)
        return pixels


def _lower_priority(niceness: int, _: int) -> None:
    if hasattr(os, "nice"):
        os.nice(niceness)


def _collate(samples: Sequence[_Sample]) -> tuple[Batch, tuple[Unreadable, ...], tuple[DataError, ...]]:
    unreadable = tuple(sample.image for sample in samples if isinstance(sample.image, Unreadable))
    errors = tuple(sample.image for sample in samples if isinstance(sample.image, DataError))
    read = [(sample, sample.image) for sample in samples if isinstance(sample.image, Tensor)]
    batch = Batch(
        images=torch.stack([image for _, image in read]) if read else torch.empty(0, 3, 0, 0, dtype=torch.uint8),
        index=torch.tensor([sample.index for sample, _ in read], dtype=torch.int64),
        labels=torch.tensor([sample.label for sample, _ in read], dtype=torch.int64),
    )
    return batch, unreadable, errors


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"  # Pillow's own message contains a memory address, which differs from run to run
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    lines = text.splitlines()
    return lines[0] if lines else type(error).__name__
