"""In which order the images of an epoch are seen, and which process sees which of them.

A step's batch is cut into parts, one for each process and each part of an accumulated gradient. Image i of a batch of
B is mixed with image B-1-i, and both are in the same part, mirrored: so what is computed does not depend on how many
parts there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tokbench.errors import UserError
from tokbench.finetune.recipes import Recipe
from tokbench.finetune.seeds import seed_of


@dataclass(frozen=True)
class Pick:
    """An image to be seen: its position in the set, and which of its copies in the epoch it is."""

    position: int
    copy: int = 0


@dataclass(frozen=True)
class Part:
    """The images of a part of a step's batch."""

    epoch: int
    picks: tuple[Pick, ...]


def check_batch(recipe: Recipe, images: int, processes: int) -> None:
    """Check that a recipe's batch can be cut into equal parts, and that there are enough images for one.

    Raises:
        UserError: It cannot, or there are not.
    """
    parts = processes * recipe.accumulate
    pair = 2 if recipe.mixes else 1
    if recipe.batch % (parts * pair):
        pairs = " of pairs to mix" if recipe.mixes else ""
        raise UserError(
            f"a batch of {recipe.batch} cannot be cut into {parts} equal parts{pairs}: set the recipe's batch to a "
            f"multiple of {parts * pair}"
        )
    if images < recipe.batch:
        raise UserError(
            f"there are {images} images to train on, fewer than a batch of {recipe.batch}: take a smaller one "
            "with --batch"
        )


def steps_of_epoch(recipe: Recipe, images: int) -> int:
    """How many whole batches an epoch has."""
    return images // recipe.batch


def epoch_order(seed: int, epoch: int, images: int, repeats: int) -> list[Pick]:
    """All images in the order of an epoch; with repeats, fewer of them with their copies one after the other."""
    order = np.random.default_rng(seed_of("order", seed, epoch)).permutation(images)
    return [Pick(int(order[place // repeats]), place % repeats) for place in range(images)]


def parts_from(recipe: Recipe, images: int, seed: int, step: int, process: int, processes: int) -> Iterator[Part]:
    """The parts that a process computes, step by step, to the end of the last epoch.

    Args:
        recipe: Says how long an epoch's batches are.
        images: How many there are.
        seed: Of the run.
        step: The first step, counted from 0 over all epochs.
        process: The process's number.
        processes: How many there are.
    """
    each = steps_of_epoch(recipe, images)
    count = processes * recipe.accumulate
    for epoch in range(step // each, recipe.epochs):
        order = epoch_order(seed, epoch, images, recipe.repeats)
        for number in range(step % each if epoch == step // each else 0, each):
            batch = order[number * recipe.batch : (number + 1) * recipe.batch]
            for part in range(process * recipe.accumulate, (process + 1) * recipe.accumulate):
                yield Part(epoch, tuple(batch[place] for place in _places(recipe.batch, part, count)))


def _places(batch: int, part: int, parts: int) -> list[int]:
    """The places in the batch of a part's images: some of the first half, then their partners, mirrored."""
    size = batch // parts
    if size % 2:  # no pairs to mix
        return list(range(part * size, (part + 1) * size))
    first = list(range(part * size // 2, (part + 1) * size // 2))
    return first + [batch - 1 - place for place in reversed(first)]
