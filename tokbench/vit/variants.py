"""Variants of a plain model that share its weights: without fused attention, and with fewer pixels."""

from __future__ import annotations

import copy
from typing import Any

import torch

from tokbench.errors import UserError
from tokbench.vit.adapters import TimmViT, adapter_of
from tokbench.vit.model_sources import build, check_name

SHARES = (13 / 14, 12 / 14, 11 / 14, 10 / 14, 9 / 14)
"""The heights of the smaller images by default: of 224 pixels in patches of 16 they are 208, 192, 176, 160 and 144."""


def without_fusion(vit: TimmViT) -> TimmViT:
    """The same model, which computes the attention matrix."""
    unfused = _sharing_weights(vit)
    for block in unfused.blocks:
        block.attn.fused_attn = False
    return unfused


def with_fewer_pixels(vit: TimmViT, size: int) -> TimmViT:
    """The same model for smaller images: timm resamples the position embeddings, and preprocessing scales along.

    Args:
        vit: The model.
        size: Height and width of the images, in pixels.

    Raises:
        UserError: The size is not a multiple of the patch size, or not below the model's own.
    """
    patch, own = max(vit.patch_embed.patch_size), min(vit.patch_embed.img_size)
    if size % patch or not 0 < size < own:
        raise UserError(f"img_size={size}: must be a multiple of the patch size {patch} below the model's {own} pixels")
    smaller = _sharing_weights(vit)
    smaller.set_input_size(img_size=(size, size))
    channels = vit.patch_embed.proj.in_channels
    smaller.pretrained_cfg = {**vit.pretrained_cfg, "input_size": (channels, size, size)}
    return smaller


def smaller_sizes(model: str, img_size: int | None = None) -> list[int]:
    """The default sizes of the images that a model is compared with itself on, falling, in pixels.

    Args:
        model: Its name.
        img_size: Height and width of its images, in pixels; None takes its own.

    Returns:
        Multiples of the patch size; empty for a model without patches.

    Raises:
        UserError: There is no such model, or it has no such size.
    """
    check_name(model)
    with torch.device("meta"):
        vit: Any = build(model, img_size)
    if adapter_of(vit) is None:
        return []
    grid, patch = min(vit.patch_embed.grid_size), max(vit.patch_embed.patch_size)
    grids = dict.fromkeys(round(share * grid) for share in SHARES)
    return [patch * smaller for smaller in grids if 0 < smaller < grid]


def _sharing_weights(vit: TimmViT) -> TimmViT:
    shared = {id(tensor): tensor for tensor in (*vit.parameters(), *vit.buffers())}
    return copy.deepcopy(vit, shared)
