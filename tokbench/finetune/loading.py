"""Loading the parts of batches in other processes while the model is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from tokbench.data.errors import DataError
from tokbench.finetune.order import Part
from tokbench.finetune.training_images import TrainingBatch, TrainingImages


def load(
    images: TrainingImages, parts: Iterator[Part], seed: int, workers: int, *, pin_memory: bool
) -> Iterator[TrainingBatch]:
    """Load and augment parts of batches, in their order.

    Args:
        images: What is loaded from.
        parts: Which images.
        seed: Of the run.
        workers: Number of processes; 0 loads in this one.
        pin_memory: Whether to put pixels into pinned memory.

    Raises:
        DataError: An image cannot be read.
    """
    loader: DataLoader[TrainingBatch | DataError] = DataLoader(
        _Parts(images, seed),
        batch_size=None,  # an item is a whole part
        sampler=parts,
        num_workers=workers,
        pin_memory=pin_memory,
        # a separate generator, because the loader draws a seed and must not change the caller's random numbers
        generator=torch.Generator(),
    )
    for loaded in loader:
        if isinstance(loaded, DataError):
            raise loaded
        yield loaded


@dataclass(frozen=True, eq=False)
class _Parts(Dataset[TrainingBatch | DataError]):
    images: TrainingImages
    seed: int

    def __getitem__(self, part: Part) -> TrainingBatch | DataError:
        try:
            return self.images.batch(part.epoch, part.picks, self.seed)
        except DataError as error:  # raised in a worker process, its message would contain the traceback
            return error
