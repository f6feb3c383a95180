"""The images that a model is trained on, augmented: each as a function of the run's seed, the epoch and the image."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import create_transform, resolve_data_config
from timm.data.auto_augment import RandAugment
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from tokbench.data.errors import DataError
from tokbench.data.identity import digest
from tokbench.data.sets import ImageSet
from tokbench.embedded.canvases import MEAN, STD, Bytes, augment, compose, digits
from tokbench.errors import describe
from tokbench.finetune.order import Pick
from tokbench.finetune.recipes import Recipe
from tokbench.finetune.seeds import seed_everything, seed_of, seeded

_CANVASES = 1 << 40  # the first seed of canvases here, so that none is the same as another program's


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """Augmented images.

    Attributes:
        pixels: (B, C, H, W) uint8.
        labels: (B,) int64.
        seeds: (B,) int64, a seed of each image for what is random in the model and on the device.
    """

    pixels: Tensor
    labels: Tensor
    seeds: Tensor

    def pin_memory(self) -> TrainingBatch:
        """The same in pinned memory; called by torch's loader."""
        return TrainingBatch(self.pixels.pin_memory(), self.labels.pin_memory(), self.seeds)


class TrainingImages(Protocol):
    """Images to train on. Picklable, because workers load them."""

    @property
    def name(self) -> str:
        """Of the set."""
        ...

    @property
    def identity(self) -> str:
        """A hash of the names and labels."""
        ...

    def __len__(self) -> int: ...

    def batch(self, epoch: int, picks: Sequence[Pick], seed: int) -> TrainingBatch:
        """Load and augment images.

        Args:
            epoch: Which epoch they are seen in.
            picks: Which images.
            seed: Of the run.

        Raises:
            DataError: One of them cannot be read.
        """
        ...

    def to_input(self, batch: TrainingBatch, device: torch.device) -> Tensor:
        """A batch as the model's input (B, C, H, W) float32, on the device."""
        ...


@dataclass(frozen=True, eq=False)
class SetImages:
    """The images of a set, augmented by timm's transforms."""

    images: ImageSet
    transform: Callable[[Image.Image], Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    erase: float

    @property
    def name(self) -> str:
        """The set's name."""
        return self.images.name

    @property
    def identity(self) -> str:
        """A hash of names and labels; unlike the set's own it does not read all images, which may take an hour."""
        return digest(self.images.names, self.images.labels)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, epoch: int, picks: Sequence[Pick], seed: int) -> TrainingBatch:
        """See `TrainingImages`."""
        seeds = [seed_of("sample", seed, epoch, pick.position, pick.copy) for pick in picks]
        return TrainingBatch(
            torch.stack([self._pixels(pick.position, own) for pick, own in zip(picks, seeds, strict=True)]),
            torch.tensor([self.images.labels[pick.position] for pick in picks]),
            torch.tensor(seeds),
        )

    def to_input(self, batch: TrainingBatch, device: torch.device) -> Tensor:
        """See `TrainingImages`. Erasing comes after normalisation, as in timm: it fills areas with normal noise."""
        pixels = batch.pixels.to(device, non_blocking=True)
        images: Tensor = normalize(pixels.float().div_(255), list(self.mean), list(self.std), inplace=True)
        if self.erase:
            eraser = RandomErasing(probability=1, mode="pixel", device=device)
            for image, seed in zip(images, batch.seeds.tolist(), strict=True):
                if random.Random(seed).random() < self.erase:
                    seed_everything(seed)
                    eraser(image)
        return images

    def _pixels(self, position: int, seed: int) -> Tensor:
        with seeded(seed):
            try:
                return torch.as_tensor(self.transform(self.images.reader.read(position)))
            except Exception as error:  # decoding and resizing raise almost any exception
                raise DataError(
                    f"{self.images.names[position]} cannot be trained on ({describe(error)}): replace or remove it"
                ) from None


def set_images(images: ImageSet, vit: nn.Module, recipe: Recipe) -> SetImages:
    """The images of a set with a recipe's augmentation, as a model takes them.

    Args:
        images: Labelled images.
        vit: A timm model, whose data config says the size and the normalisation.
        recipe: Says the augmentation.
    """
    config: dict[str, Any] = resolve_data_config({}, model=vit)
    transform = create_transform(
        config["input_size"],
        is_training=True,
        use_prefetcher=True,  # which leaves the normalisation to the device
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.flip,
        color_jitter=recipe.color_jitter,
        auto_augment=recipe.auto_augment or None,
        interpolation=recipe.interpolation,
        mean=config["mean"],
        std=config["std"],
    )
    posterize_to_black(transform)
    return SetImages(images, transform, tuple(config["mean"]), tuple(config["std"]), recipe.erase)


def posterize_to_black(transform: Any) -> None:
    """Let timm's RandAugment keep 0 bits of an image, which is black.

    At its highest levels it asks for that. Newer versions of Pillow refuse it: a run would end at such an image.

    Args:
        transform: timm's transform for training, changed in place.
    """
    for step in transform.transforms:
        for operation in step.ops if isinstance(step, RandAugment) else ():
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterize


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    if bits < 1:
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, min(bits, 8))


@dataclass(frozen=True)
class DigitImages:
    """The digits for training, varied and in new clutter in each epoch; a recipe's augmentation does not apply."""

    name: str = "training digits"

    @property
    def identity(self) -> str:
        """A hash of the digits and their labels."""
        real = digits("train")
        return digest(real.images.tolist(), real.labels.tolist())

    def __len__(self) -> int:
        return len(digits("train").labels)

    def batch(self, epoch: int, picks: Sequence[Pick], seed: int) -> TrainingBatch:
        """See `TrainingImages`."""
        labels = digits("train").labels
        return TrainingBatch(
            torch.from_numpy(np.stack([_canvases(seed, epoch, pick.copy)[pick.position] for pick in picks]))[:, None],
            torch.from_numpy(labels[[pick.position for pick in picks]]),
            torch.tensor([seed_of("sample", seed, epoch, pick.position, pick.copy) for pick in picks]),
        )

    def to_input(self, batch: TrainingBatch, device: torch.device) -> Tensor:
        """See `TrainingImages`."""
        return (batch.pixels.to(device).float() / 255 - MEAN) / STD


@lru_cache(maxsize=4)
def _canvases(seed: int, epoch: int, copy: int) -> Bytes:
    """(N, SIDE, SIDE): one canvas of each digit."""
    real = digits("train")
    own = seed_of("canvases", seed, epoch, copy)
    shown = augment(real.images, np.random.default_rng(own))
    return compose(shown, real.images, seed=_CANVASES + own)
