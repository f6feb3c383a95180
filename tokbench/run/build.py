"""From a cell to its model with the method in it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load
from torch import Tensor

from tokbench.downsampler import Downsampler
from tokbench.names import PLAIN
from tokbench.plugins import Origin, import_again, origin_of
from tokbench.registry import create, method_class
from tokbench.schedule import Schedule
from tokbench.vit.adapters import TimmViT
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.calibration import set_constants
from tokbench.vit.models import Pretrained, load_method_weights
from tokbench.vit.variants import with_fewer_pixels, without_fusion

if TYPE_CHECKING:
    from tokbench.measure.latency import Forward
    from tokbench.measure.memory import Build
    from tokbench.run.cells import Cell, Variant


def build_model(cell: Cell, model: Pretrained) -> DownsampledViT:
    """A cell's model with its method in it, sharing the plain model's parameters.

    Raises:
        MethodWeightsError: The file with the weights holds those of another method.
        UserError: Method, schedule and model do not fit together.
        Exception: Whatever the method raises.
    """
    variant = cell.variant
    if variant.method == PLAIN:
        return DownsampledViT(without_fusion(model.vit) if variant.unfused else input_model(cell, model)).eval()
    method, schedule = build_method(variant)
    built = DownsampledViT(
        model.vit, method, schedule, site=variant.site, position=variant.position, seed=cell.seed or 0
    )
    load_method_weights(built, model.downsampler)
    if variant.constants:
        set_constants(built, load(variant.constants))
    return built.eval()


def input_model(cell: Cell, model: Pretrained) -> TimmViT:
    """The plain model that reads the images of a cell: the model itself, or the same with fewer pixels.

    Raises:
        UserError: The model cannot read images of that size.
    """
    size = cell.variant.img_size
    return model.vit if size is None else with_fewer_pixels(model.vit, size)


def build_method(variant: Variant) -> tuple[Downsampler, Schedule]:
    """A new instance of the method, and its schedule."""
    schedule = Schedule.parse(variant.found or variant.schedule, variant.keep)
    return create(variant.method, **dict(variant.params)), schedule


def recipe(cell: Cell, saved: Path) -> Build:
    """What another process builds a cell's model from: the plain model and its images in a file of `save_plain`."""
    own = None if cell.variant.method == PLAIN else origin_of(method_class(cell.variant.method).__module__)
    return partial(_rebuild, saved, cell, own)


def save_plain(model: Pretrained, images: Tensor, file: Path) -> None:
    """Write a plain model and images (B, C, H, W) for `recipe`."""
    torch.save((model, images.clone()), file)


def _rebuild(saved: Path, cell: Cell, method: Origin | None) -> tuple[Forward, Tensor]:
    if method is not None:
        import_again(method)
    model, images = torch.load(saved, weights_only=False)
    return build_model(cell, model), images
