"""A model's preprocessing in two steps: to uint8 pixels, small enough to be cached, and to the model's input."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version

import torch
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn

__all__ = ["Preprocessing", "preprocessing_of"]

# Packages that resize images: another version may give other pixels.
_RESIZING_PACKAGES = ("pillow", "timm", "torchvision")


@dataclass(frozen=True)
class Preprocessing:
    """Turns an image into the model's input.

    Attributes:
        resize: timm's evaluation transform up to the pixels: size, crop and interpolation. Picklable.
        shape: (C, H, W) of the pixels.
        mean: Mean of each channel, for pixels from 0 to 1.
        std: Standard deviation of each channel, likewise.
        identity: A hash of everything that the pixels depend on besides the image.
    """

    resize: Callable[[Image.Image], Tensor]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    identity: str

    def pixels(self, image: Image.Image) -> Tensor:
        """(C, H, W) uint8: the image resized and cropped."""
        return torch.as_tensor(self.resize(image))  # older versions of timm return an array

    def normalise(self, pixels: Tensor, like: Tensor) -> Tensor:
        """The model's input, as torchvision's `ToTensor` and `Normalize` compute it, but on the device.

        Args:
            pixels: (B, C, H, W) uint8.
            like: A tensor with the device and dtype of the result; the arithmetic is in float32.

        Returns:
            (B, C, H, W).
        """
        moved = pixels.to(like.device, non_blocking=True)
        scaled = moved.to(torch.float32).div_(255)
        # torchvision's function would copy both to the device for every batch, and wait for it.
        mean, std = (_channels(values, like.device) for values in (self.mean, self.std))
        return scaled.sub_(mean).div_(std).to(like.dtype)


@lru_cache(maxsize=64)
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One number for each channel, (C, 1, 1) on a device."""
    return torch.tensor(values, device=device)[:, None, None]


def preprocessing_of(vit: nn.Module) -> Preprocessing:
    """timm's evaluation preprocessing, from the model's data config."""
    settings = resolve_data_config({}, model=vit)
    resizing = {name: setting for name, setting in settings.items() if name not in ("mean", "std")}
    depends_on = {**resizing, **{package: version(package) for package in _RESIZING_PACKAGES}}
    return Preprocessing(
        resize=create_transform(**settings, use_prefetcher=True),
        shape=tuple(settings["input_size"]),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        identity=hashlib.sha256(json.dumps(depends_on, sort_keys=True, default=str).encode()).hexdigest(),
    )
