"""A small DeiT that classifies the embedded suite's canvases, and its shipped weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import VisionTransformer

from tokbench.embedded.canvases import SIDE

PATCH = 4
"""Height and width of a patch, in pixels."""

GRID = SIDE // PATCH
"""Patches along each side of a canvas."""

WEIGHTS = Path(__file__).with_name("digits_deit.safetensors")
"""The weights, written by `python -m tokbench.embedded.train` and read by `load`."""


def build(drop_path: float = 0.0) -> VisionTransformer:
    """A DeiT of 12 blocks, width 48 and 3 heads over 8×8 patches, with random weights.

    The learned position embeddings start as sines and cosines of the patch position. With random initial values,
    learning which patches are neighbours takes several times as long on a training set this small.

    Args:
        drop_path: Rate of stochastic depth at the last block, for training.
    """
    vit = VisionTransformer(
        img_size=SIDE,
        patch_size=PATCH,
        in_chans=1,
        num_classes=10,
        global_pool="token",
        embed_dim=48,
        depth=12,
        num_heads=3,
        drop_path_rate=drop_path,
        fc_norm=False,
        weight_init="jax",  # timm's default, meant for widths of hundreds, gives uniform attention at width 48
    )
    with torch.no_grad():
        vit.pos_embed[0, 1:] = build_sincos2d_pos_embed([GRID, GRID], vit.embed_dim, temperature=100.0)
    return vit


def load() -> VisionTransformer:
    """The shipped model: float32, in eval mode."""
    vit = build()
    vit.load_state_dict(load_file(WEIGHTS))
    return vit.eval()
