"""The small DeiTs that classify the embedded suite's canvases, and their shipped weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import VisionTransformer

from tokbench.embedded.canvases import SIDE
from tokbench.names import EMBEDDED_MODELS

PATCH = 4
"""Height and width of a patch, in pixels."""

GRID = SIDE // PATCH
"""Patches along each side of a canvas."""

WIDTHS: dict[str, int] = dict(zip(EMBEDDED_MODELS, (48, 32, 16), strict=True))
"""Per model: the width of its tokens. Like DeiT's own sizes, the models differ in width and heads only."""

_HEAD = 16  # width of one attention head


def weights_file(name: str) -> Path:
    """The shipped weights of a model, written by `python -m tokbench.embedded.train` and read by `load`."""
    return Path(__file__).with_name(f"{name}.safetensors")


def build(name: str = EMBEDDED_MODELS[0], drop_path: float = 0.0) -> VisionTransformer:
    """A DeiT of 12 blocks over 8×8 patches, with random weights.

    The learned position embeddings start as sines and cosines of the patch position. With random initial values,
    learning which patches are neighbours takes several times as long on a training set this small.

    Args:
        name: One of `WIDTHS`.
        drop_path: Rate of stochastic depth at the last block, for training.
    """
    vit = VisionTransformer(
        img_size=SIDE,
        patch_size=PATCH,
        in_chans=1,
        num_classes=10,
        global_pool="token",
        embed_dim=WIDTHS[name],
        depth=12,
        num_heads=WIDTHS[name] // _HEAD,
        drop_path_rate=drop_path,
        fc_norm=False,
        weight_init="jax",  # timm's default, meant for widths of hundreds, gives uniform attention at these widths
    )
    with torch.no_grad():
        vit.pos_embed[0, 1:] = build_sincos2d_pos_embed([GRID, GRID], vit.embed_dim, temperature=100.0)
    return vit


def load(name: str = EMBEDDED_MODELS[0]) -> VisionTransformer:
    """A shipped model by name: float32, in eval mode."""
    vit = build(name)
    vit.load_state_dict(load_file(weights_file(name)))
    return vit.eval()
