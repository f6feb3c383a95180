"""The ViT that weights are of, from the shapes of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench.errors import UserError
from tokbench.trained.checkpoint import Trained
from tokbench.vit.adapters import TimmViT
from tokbench.vit.model_sources import build
from tokbench.vit.weights import misfits, one_line

HEAD_WIDTH = 64  # channels per head of every DeiT
DEITS = {192: "deit_tiny_patch16_224", 384: "deit_small_patch16_224", 768: "deit_base_patch16_224"}


def model_name(state: Mapping[str, Tensor]) -> str:
    """The name of the DeiT of 224 pixels whose shapes the weights have, but for its head; empty if there is none."""
    try:
        shape = _shape(state)
    except UserError:
        return ""
    name = DEITS.get(shape["embed_dim"], "")
    usual = {"img_size": 224, "patch_size": 16, "in_chans": 3, "depth": 12, "mlp_ratio": 4.0, "qkv_bias": True}
    return name if all(shape[key] == value for key, value in usual.items()) else ""


def blank_vit(trained: Trained, like: str | None = None) -> TimmViT:
    """A ViT with a class token whose weights have the shapes of a checkpoint's.

    The number of heads is in no shape. Where the width is not a DeiT's, a model with as many heads has to be named.

    Args:
        trained: The checkpoint.
        like: The name of a timm model with as many heads.

    Returns:
        The model, with timm's initial weights.

    Raises:
        UserError: The number of heads is unknown, or the weights are of another kind of model.
    """
    shown = one_line(str(trained.file))
    shape = _shape(trained.vit, shown)
    width = shape["embed_dim"]
    if like is not None:
        with torch.device("meta"):
            model: Any = build(like)
        heads = int(model.blocks[0].attn.num_heads)
    elif width in DEITS:
        heads = width // HEAD_WIDTH
    else:
        raise UserError(
            f"{shown} does not say how many heads its attention has, and no DeiT is {width} wide: name a model with as "
            f"many, as in --checkpoint deit_tiny_patch16_224=FILE for 3"
        )
    if width % heads:
        raise UserError(f"{shown} is {width} wide, which {heads} heads of {like} do not divide: name another model")
    with torch.random.fork_rng(devices=[]):
        vit = VisionTransformer(num_heads=heads, **shape)
    misfit = misfits(vit.state_dict(), dict(trained.vit))
    if misfit:
        raise UserError(f"{shown} is of no plain ViT with a class token ({misfit}): leave it out of --checkpoint")
    return vit


def _shape(state: Mapping[str, Tensor], shown: str = "the checkpoint") -> dict[str, Any]:
    """The arguments of timm's class that weights show."""
    patch, position, hidden = (
        state.get(key) for key in ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight")
    )
    grid = 0 if position is None or position.ndim != 3 else math.isqrt(max(0, position.shape[1] - 1))
    if (
        patch is None
        or position is None
        or hidden is None
        or (patch.ndim, hidden.ndim) != (4, 2)
        or patch.shape[2] != patch.shape[3]
        or grid * grid + 1 != position.shape[1]
    ):
        raise UserError(
            f"{shown} is of no ViT with square images, patches and a class token: leave it out of --checkpoint"
        )
    width, head = int(patch.shape[0]), state.get("head.bias")
    return {
        "img_size": grid * int(patch.shape[2]),
        "patch_size": int(patch.shape[2]),
        "in_chans": int(patch.shape[1]),
        "num_classes": 0 if head is None else len(head),
        "embed_dim": width,
        "depth": len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        "mlp_ratio": hidden.shape[0] / width,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
    }
