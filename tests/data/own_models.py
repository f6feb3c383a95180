"""Tiny ViTs that timm knows by name, with few classes and random but fixed weights, and an independent evaluation."""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

ANIMALS = ("birds", "cats", "dogs")


def picture(number: int) -> Image.Image:
    """A coarse pattern of colours, another for each number."""
    noise = np.random.default_rng(number).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((40, 48), Image.Resampling.BILINEAR)


def tiny(classes: int) -> VisionTransformer:
    """A ViT of two blocks for images of 32 pixels, which gives different pictures different answers."""
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=classes)
    generator = torch.Generator().manual_seed(classes)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    vit.pretrained_cfg = {
        "input_size": (3, 32, 32),
        "interpolation": "bicubic",
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "crop_pct": 0.9,
    }
    transform = create_transform(**resolve_data_config({}, model=vit))
    with torch.no_grad():
        vit.head.bias -= vit.eval()(torch.stack([transform(picture(number)) for number in range(64)])).mean(dim=0)
    return vit


@register_model
def tiny_vit_of_3_classes(pretrained: bool = False, **_: object) -> VisionTransformer:
    return tiny(3)


@register_model
def tiny_vit_of_12_classes(pretrained: bool = False, **_: object) -> VisionTransformer:
    return tiny(12)


@register_model
def tiny_vit_of_1000_classes(pretrained: bool = False, **_: object) -> VisionTransformer:
    return tiny(1000)


def model_of(classes: int) -> str:
    """The name of a model with so many classes."""
    name = f"tiny_vit_of_{classes}_classes"
    assert hasattr(sys.modules[__name__], name)
    return name


def save_weights(classes: int, folder: Path) -> Path:
    file = folder / f"{model_of(classes)}.safetensors"
    save_file(tiny(classes).state_dict(), file)
    return file


@torch.inference_mode()
def logits_of(files: Mapping[str, Path], classes: int) -> dict[str, Tensor]:
    """The logits of each file by an independent loop: Pillow, timm's own transform, one image at a time."""
    vit = timm.create_model(model_of(classes)).eval()
    transform = create_transform(**resolve_data_config({}, model=vit))
    return {name: vit(transform(Image.open(file).convert("RGB"))[None])[0] for name, file in files.items()}


def right_answers(files: Mapping[str, Path], labels: Mapping[str, int], classes: int) -> dict[str, bool]:
    """Whether the model's answer to each file is its label."""
    logits = logits_of(files, classes)
    return {name: int(logits[name].argmax()) == labels[name] for name in files}
