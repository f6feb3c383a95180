"""The small ViTs that classify the embedded suite's canvases, and their shipped weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.layers import RotaryEmbeddingCat, build_rotary_pos_embed, build_sincos2d_pos_embed
from timm.models import named_apply
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer, init_weights_vit_jax

from tokbench.embedded.canvases import SIDE
from tokbench.names import EMBEDDED_MODELS

PATCH = 4
"""Height and width of a patch, in pixels."""

GRID = SIDE // PATCH
"""Patches along each side of a canvas."""

WIDTHS: dict[str, int] = dict(zip(EMBEDDED_MODELS, (48, 32, 16, 48), strict=True))
"""Per model: the width of its tokens. Like DeiT's own sizes, the DeiTs differ in width and heads only."""

ROTARY = EMBEDDED_MODELS[3]
"""The model with rotary positions."""

_HEAD = 16  # width of one attention head
_TEMPERATURE = 100.0  # of the frequencies of positions; timm's 10,000 is meant for thousands of positions, not for 8


def weights_file(name: str) -> Path:
    """The shipped weights of a model, written by `python -m tokbench.embedded.train` and read by `load`."""
    return Path(__file__).with_name(f"{name}.safetensors")


def build(name: str = EMBEDDED_MODELS[0], drop_path: float = 0.0) -> VisionTransformer | Eva:
    """A ViT of 12 blocks over 8×8 patches, with random weights.

    Args:
        name: One of `WIDTHS`. `ROTARY` knows positions by the rotation of queries and keys only; the others are DeiTs,
            whose position embeddings are added to the patches.
        drop_path: Rate of stochastic depth at the last block, for training.
    """
    size = {
        "img_size": SIDE,
        "patch_size": PATCH,
        "in_chans": 1,
        "num_classes": 10,
        "global_pool": "token",
        "embed_dim": WIDTHS[name],
        "depth": 12,
        "num_heads": WIDTHS[name] // _HEAD,
        "drop_path_rate": drop_path,
    }
    return _rotary(size) if name == ROTARY else _deit(size)


def load(name: str = EMBEDDED_MODELS[0]) -> VisionTransformer | Eva:
    """A shipped model by name: float32, in eval mode."""
    vit = build(name)
    vit.load_state_dict(load_file(weights_file(name)))
    return vit.eval()


# Both are initialised in timm's mode "jax": its default, meant for widths of hundreds, gives uniform attention here.


def _deit(size: dict[str, Any]) -> VisionTransformer:
    """A DeiT, whose position embeddings start as sines and cosines of the patch position.

    With random initial values, learning which patches are neighbours takes several times as long on a training set
    this small.
    """
    vit = VisionTransformer(**size, fc_norm=False, weight_init="jax")
    with torch.no_grad():
        vit.pos_embed[0, 1:] = build_sincos2d_pos_embed([GRID, GRID], vit.embed_dim, temperature=_TEMPERATURE)
    return vit


def _rotary(size: dict[str, Any]) -> Eva:
    """The same with timm's `Eva` and axial rotary positions, as in Naver's RoPE-ViT (Heo et al. 2024)."""
    vit = Eva(**size, use_abs_pos_emb=False, use_rot_pos_emb=True)
    named_apply(init_weights_vit_jax, vit)
    grid = vit.patch_embed.grid_size
    vit.rope = RotaryEmbeddingCat(_HEAD, temperature=_TEMPERATURE, in_pixels=False, feat_shape=grid)
    # timm before 1.0.17 computes the table for its own temperature.
    table = build_rotary_pos_embed(grid, dim=_HEAD, temperature=_TEMPERATURE, in_pixels=False)
    vit.rope.pos_embed.copy_(torch.cat(table, -1))
    return vit
