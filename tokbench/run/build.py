"""From a cell to its model with the method in it."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench.downsampler import Downsampler
from tokbench.names import PLAIN
from tokbench.plugins import Origin, import_again, origin_of
from tokbench.registry import create, method_class
from tokbench.schedule import Schedule
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import Pretrained, load_method_weights

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
        return DownsampledViT(_without_fusion(model.vit) if variant.params else model.vit).eval()
    method, schedule = build_method(variant)
    built = DownsampledViT(model.vit, method, schedule, site=variant.site, seed=cell.seed or 0)
    load_method_weights(built, model.downsampler)
    return built.eval()


def build_method(variant: Variant) -> tuple[Downsampler, Schedule]:
    """A new instance of the method, and its schedule."""
    return create(variant.method, **dict(variant.params)), Schedule.parse(variant.schedule, variant.keep)


def recipe(cell: Cell, saved: Path) -> Build:
    """What another process builds a cell's model from: the plain model and its images in a file of `save_plain`."""
    own = None if cell.variant.method == PLAIN else origin_of(method_class(cell.variant.method).__module__)
    return partial(_rebuild, saved, cell, own)


def save_plain(model: Pretrained, images: Tensor, file: Path) -> None:
    """Write a plain model and images (B, C, H, W) for `recipe`."""
    torch.save((model, images.clone()), file)


def _without_fusion(vit: VisionTransformer) -> VisionTransformer:
    """The same model, sharing its weights, that computes the attention matrix."""
    shared = {id(tensor): tensor for tensor in (*vit.parameters(), *vit.buffers())}
    unfused = copy.deepcopy(vit, shared)
    for block in unfused.blocks:
        block.attn.fused_attn = False
    return unfused


def _rebuild(saved: Path, cell: Cell, method: Origin | None) -> tuple[Forward, Tensor]:
    if method is not None:
        import_again(method)
    model, images = torch.load(saved, weights_only=False)
    return build_model(cell, model), images
