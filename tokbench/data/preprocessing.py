"""A model's own preprocessing, in two parts: pixels, which are small and can be kept, and what the model reads."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import torch
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

__all__ = ["Preprocessing", "preprocessing_of"]

# Whose next version may resize an image to other pixels.
_RESIZING = ("pillow", "timm", "torchvision")


@dataclass(frozen=True)
class Preprocessing:
    """From an image to what a model reads.

    Attributes:
        resize: timm's own evaluation transform up to the pixels: size, crop and interpolation. Picklable.
        shape: (C, H, W) of the pixels.
        mean: Of each channel, where the brightest pixel is 1.
        std: Likewise.
        identity: A hash of all that the pixels depend on besides the image.
    """

    resize: Callable[[Image.Image], Tensor]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    identity: str

    def pixels(self, image: Image.Image) -> Tensor:
        """(C, H, W) uint8: the image resized and cut."""
        return torch.as_tensor(self.resize(image))  # older timm hands out an array

    def normalise(self, pixels: Tensor, like: Tensor) -> Tensor:
        """What the model reads, as torchvision's `ToTensor` and `Normalize` compute it, on the device.

        Args:
            pixels: (B, C, H, W) uint8.
            like: Gives device and dtype; the arithmetic is float32.

        Returns:
            (B, C, H, W).
        """
        moved = pixels.to(like.device, non_blocking=True)
        scaled = moved.to(torch.float32).div_(255)
        normalised: Tensor = normalize(scaled, list(self.mean), list(self.std), inplace=True)
        return normalised.to(like.dtype)


def preprocessing_of(vit: nn.Module) -> Preprocessing:
    """timm's own evaluation preprocessing, from the model's data config."""
    settings = resolve_data_config({}, model=vit)
    sizing = {name: setting for name, setting in settings.items() if name not in ("mean", "std")}
    telling = {**sizing, **{package: version(package) for package in _RESIZING}}
    return Preprocessing(
        resize=create_transform(**settings, use_prefetcher=True),
        shape=tuple(settings["input_size"]),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        identity=hashlib.sha256(json.dumps(telling, sort_keys=True, default=str).encode()).hexdigest(),
    )
