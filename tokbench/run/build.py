"""From a cell to its model with the method in it."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load
from torch import Tensor

from tokbench.downsampler import Downsampler
from tokbench.errors import UserError
from tokbench.names import PLAIN
from tokbench.plugins import Origin, import_again, origin_of
from tokbench.registry import create, method_class
from tokbench.schedule import Schedule
from tokbench.trained.reading import read_trained
from tokbench.vit.adapters import TimmViT
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.calibration import set_constants
from tokbench.vit.models import Pretrained, load_method_weights
from tokbench.vit.variants import with_fewer_pixels, without_fusion
from tokbench.vit.weights import METHOD, misfits

if TYPE_CHECKING:
    from tokbench.measure.call_timer import Forward
    from tokbench.measure.memory import Build
    from tokbench.run.cells import Cell
    from tokbench.run.variant import FineTunedFile, Variant


def build_model(cell: Cell, model: Pretrained) -> DownsampledViT:
    """A cell's model with its method in it, sharing the plain model's parameters.

    Raises:
        MethodWeightsError: The file with the weights holds those of another method.
        UserError: Method, schedule and model do not fit together, or a checkpoint does not fit them.
        Exception: Whatever the method raises.
    """
    variant = cell.variant
    if variant.fine_tuned is not None:
        return _fine_tuned(cell, model, variant.fine_tuned)
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


def _fine_tuned(cell: Cell, model: Pretrained, file: FineTunedFile) -> DownsampledViT:
    """A cell's model with the weights of a checkpoint, which are its own.

    Raises:
        UserError: The checkpoint has changed since it was planned, or it does not fit the model and the method.
    """
    trained = read_trained(Path(file.path))
    if trained.sha256 != file.sha256:
        raise UserError(f"{file.path} has changed since the comparison began: run it again")
    variant, vit = cell.variant, copy.deepcopy(model.vit)
    if file.classes is not None and file.classes != vit.num_classes:
        weight = vit.patch_embed.proj.weight
        vit.reset_classifier(file.classes)
        vit.to(weight.device, weight.dtype)
    misfit = misfits(vit.state_dict(), dict(trained.vit))
    if misfit:
        raise UserError(f"{file.path} does not fit {cell.model}: {misfit}")
    vit.load_state_dict(dict(trained.vit))
    if variant.method == PLAIN:
        return DownsampledViT(vit).eval()
    method, schedule = build_method(variant)
    built = DownsampledViT(vit, method, schedule, site=variant.site, position=variant.position, seed=cell.seed or 0)
    misfit = misfits(method.state_dict(), dict(trained.downsampler))
    if misfit:
        raise UserError(f"{file.path} does not fit method '{method.name}' with {schedule}: {misfit}")
    built.load_state_dict({f"{METHOD}{name}": value for name, value in trained.downsampler.items()}, strict=False)
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
