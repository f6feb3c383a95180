"""The held-out canvases as an image set, and the preprocessing for the small DeiT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from tokbench.data.sets import ImageSet
from tokbench.embedded.canvases import MEAN, SIDE, STD, Canvases, compose, digits, held_out

DATA_CONFIG: dict[str, Any] = {
    "input_size": (1, SIDE, SIDE),
    "mean": (MEAN,),
    "std": (STD,),
    "crop_pct": 1.0,
    "crop_mode": "center",
    "interpolation": "bicubic",
}
"""Arguments of timm's `create_transform`. Canvases are resized for baselines with fewer pixels only."""

DIGITS = tuple("0123456789")
"""The names of the classes."""

_CALIBRATION = 2  # the seed of the positions, the clutter and the noise of the canvases to calibrate on


@dataclass(frozen=True, eq=False)
class CanvasReader:
    """Reads canvases as greyscale images."""

    canvases: Canvases

    def read(self, index: int) -> Image.Image:
        """The image at a position."""
        return Image.fromarray(self.canvases.images[index])

    def content(self, index: int) -> bytes:
        """The pixels of the image at a position."""
        return bytes(self.canvases.images[index].tobytes())


def image_set() -> ImageSet:
    """The 1,000 held-out canvases."""
    return _of(held_out(), "digits")


def calibration_set() -> ImageSet:
    """A canvas of each of the 797 digits that the models were trained on, which are never measured."""
    train = digits("train")
    return _of(Canvases(compose(train.images, train.images, seed=_CALIBRATION), train.labels), "training digits")


def _of(canvases: Canvases, name: str) -> ImageSet:
    return ImageSet(
        name=name,
        names=tuple(f"{number:04d}" for number in range(len(canvases.labels))),
        labels=tuple(canvases.labels.tolist()),
        classes=None,
        reader=CanvasReader(canvases),
        class_names=DIGITS,
        class_count=len(DIGITS),
    )
