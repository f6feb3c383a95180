"""Streaming an image set in preprocessed batches.

Which images share a batch follows from their positions alone, not from which of them could be read: results are
compared image by image between runs, and a logit's last bits may depend on the batch around it.
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

_UNREADABLE_ALLOWED = 0.01
_AHEAD = 2  # batches that a worker decodes ahead, as PyTorch has it


@dataclass(frozen=True, eq=False)
class Batch:
    """Images as they are decoded.

    Attributes:
        images: (B, C, H, W) pixels, uint8; (0, 3, 0, 0) where none of the batch's images could be read.
        index: (B,) int64, positions in the ImageSet.
        labels: (B,) int64, ImageNet-1k classes.
    """

    images: Tensor
    index: Tensor
    labels: Tensor

    def pin_memory(self) -> "Batch":
        """The same with images that a GPU can fetch by itself; the loader asks for it."""
        return replace(self, images=self.images.pin_memory())


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be decoded, and why."""

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
    """Decode, preprocess and batch the images of positions start to stop, in order.

    Batch i covers the positions [start + i·batch_size, start + (i+1)·batch_size). An image that cannot be read makes
    its own batch smaller and moves no other image.

    Args:
        images: The set.
        transform: From a PIL image to its pixels (C, H, W); picklable if `workers` > 0.
        batch_size: Positions a batch.
        workers: Processes that decode; 0 decodes in this one. Closing the iterator early ends them.
        start: First position.
        stop: One past the last position; None for the end.
        waiting: How many decoded batches may wait at most: fewer workers decode where it is less; None for no bound.
        cache: Where preprocessed images are kept, and looked for first.
        pin_memory: Whether batches go where a GPU can fetch them by itself.
        niceness: How far the workers stand back for other processes (`os.nice`, where the system has it). Where a model
            runs on the same cores, they decode when it waits, and no thread of it waits for one of theirs.

    Yields:
        A batch, and what could not be read of its positions.

    Raises:
        DataError: The cache cannot be written.
    """
    if waiting is not None:
        workers = min(workers, waiting)
    ahead = _AHEAD if waiting is None or not workers else min(_AHEAD, waiting // workers)
    loader: DataLoader[_Sample] = DataLoader(
        _Samples(images, transform, cache),
        batch_size=batch_size,
        sampler=range(len(images))[start:stop],
        num_workers=workers,
        prefetch_factor=ahead if workers else None,
        pin_memory=pin_memory,
        collate_fn=_collate,
        worker_init_fn=partial(_stand_back, niceness),
        # its own, for the loader draws a seed, and the caller's random numbers must not depend on that
        generator=torch.Generator(),
    )
    for batch, unread, failed in loader:
        if failed:
            raise failed[0]
        yield batch, unread


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
    image: Tensor | Unreadable | DataError


@dataclass(frozen=True, eq=False)
class _Samples(Dataset[_Sample]):
    images: ImageSet
    transform: Transform
    cache: PixelCache | None

    def __getitem__(self, index: int) -> _Sample:
        reader, label = self.images.reader, self.images.labels[index]
        try:
            content = b"" if self.cache is None else reader.content(index)
            kept = None if self.cache is None else self.cache.get(content)
            found = reader.read(index) if kept is None else kept
        except Exception as error:  # decoders raise nearly everything on a damaged file; each is told by name
            return _Sample(index, label, Unreadable(self.images.names[index], _reason(error)))
        if isinstance(found, Tensor):
            return _Sample(index, label, found)
        pixels = self.transform(found)
        if self.cache is not None:
            try:
                self.cache.put(content, pixels)
            except DataError as error:  # out of another process an exception would come with its traceback as text
                return _Sample(index, label, error)
        return _Sample(index, label, pixels)


def _stand_back(niceness: int, _: int) -> None:
    if hasattr(os, "nice"):
        os.nice(niceness)


def _collate(samples: Sequence[_Sample]) -> tuple[Batch, tuple[Unreadable, ...], tuple[DataError, ...]]:
    unreadable = tuple(sample.image for sample in samples if isinstance(sample.image, Unreadable))
    failed = tuple(sample.image for sample in samples if isinstance(sample.image, DataError))
    read = [(sample, sample.image) for sample in samples if isinstance(sample.image, Tensor)]
    batch = Batch(
        images=torch.stack([image for _, image in read]) if read else torch.empty(0, 3, 0, 0, dtype=torch.uint8),
        index=torch.tensor([sample.index for sample, _ in read], dtype=torch.int64),
        labels=torch.tensor([sample.label for sample, _ in read], dtype=torch.int64),
    )
    return batch, unreadable, failed


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"  # Pillow's own message holds a memory address, which no two runs share
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__
