"""Which models `DownsampledViT` can put a method into."""

from __future__ import annotations

from typing import NoReturn

from timm.layers import PatchEmbed
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import nn

from tokbench.errors import UserError


class UnsupportedModelError(UserError):
    """`DownsampledViT` does not support the model; the message says why."""


def check_supported(vit: nn.Module) -> None:
    """Raise an error if `DownsampledViT` does not support a model.

    Raises:
        UnsupportedModelError: The message gives the reason.
    """

    def refuse(reason: str) -> NoReturn:
        raise UnsupportedModelError(
            f"{type(vit).__name__} is not supported: {reason}; use a timm ViT such as deit_small_patch16_224"
        )

    if not isinstance(vit, VisionTransformer):
        refuse("it is not a timm VisionTransformer")
    if type(vit).forward_features is not VisionTransformer.forward_features:
        refuse("it has its own forward pass")
    if not isinstance(vit.patch_embed, PatchEmbed):
        refuse(f"its patch embedding is {type(vit.patch_embed).__name__}, not a single convolution")
    if not isinstance(vit.patch_drop, nn.Identity):
        refuse("it drops random patches in training")
    if vit.attn_pool is not None or vit.global_pool not in ("token", "avg"):
        refuse("its pooling is neither class token nor average")
    for depth, block in enumerate(vit.blocks):
        if type(block) is not Block:
            refuse(f"block {depth} is {type(block).__name__}, not norm1→attention→norm2→MLP")
        if type(block.attn) is not Attention or getattr(block.attn, "gate", None) is not None:
            refuse(f"the attention of block {depth} is not timm's plain Attention")
