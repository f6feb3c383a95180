"""The tokens that were really there: counted at the modules that read them, not asked of the method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.tokens import Tokens
from tokbench.vit.backbone import DownsampledViT


@dataclass(frozen=True)
class Ledger:
    """Token counts of each block, in order.

    A batch is as long as its longest image; the shorter ones are padded, and padding is computed like the rest.

    Attributes:
        attention: n = P+N that the attention reads, padding included.
        mlp: n = P+N that the MLP reads, padding included.
        leaving: N, the patch tokens that leave the block, padding included.
        images: For each image of the batch its own patch tokens that leave each block, without padding.
    """

    attention: tuple[int, ...]
    mlp: tuple[int, ...]
    leaving: tuple[int, ...]
    images: tuple[tuple[int, ...], ...]


def keep_ledger(model: DownsampledViT, images: Tensor) -> Ledger:
    """Run the model once and write down the shapes.

    Args:
        model: A downsampled ViT.
        images: (B, C, H, W).
    """
    attention: list[int] = []
    mlp: list[int] = []
    leaving: list[int] = []
    valid: list[Tensor | None] = []

    def reader(column: list[int]) -> Any:
        def write(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            column.append(inputs[0].shape[1])

        return write

    def observe(depth: int, tokens: Tokens) -> None:
        leaving.append(tokens.n_patches)
        valid.append(tokens.valid)  # counted afterwards: here it would be work of the model's

    hooks = []
    for block in model.vit.blocks:
        hooks.append(block.attn.qkv.register_forward_pre_hook(reader(attention)))
        hooks.append(block.mlp.register_forward_pre_hook(reader(mlp)))
    try:
        with torch.inference_mode():
            model(images, observe=observe)
            own = [
                [n] * len(images) if mask is None else mask.sum(dim=1).tolist()
                for n, mask in zip(leaving, valid, strict=True)
            ]
    finally:
        for hook in hooks:
            hook.remove()
    return Ledger(tuple(attention), tuple(mlp), tuple(leaving), tuple(zip(*own, strict=True)))


def closed_form(model: DownsampledViT, ledger: Ledger) -> int:
    """The backbone's MACs for one image from its measured tokens, padding included.

    For a plain ViT of width C: 4nC² + 2n²C with the n at attention and 8nC² with the n at the MLP for each block, plus
    patch embedding, head and, where tokens are averaged, their sum; written with the weights' own sizes, so that other
    MLP ratios and SwiGLU fit too.
    """
    vit = model.vit
    total: int = vit.patch_embed.proj.weight.numel() * vit.patch_embed.num_patches
    for block, n_attention, n_mlp in zip(vit.blocks, ledger.attention, ledger.mlp, strict=True):
        attention = block.attn
        total += n_attention * (attention.qkv.weight.numel() + attention.proj.weight.numel())
        total += 2 * n_attention**2 * attention.num_heads * attention.head_dim
        total += n_mlp * _linear_weights(block.mlp)
    if vit.global_pool == "avg":
        total += ledger.leaving[-1] * vit.embed_dim
    return total + _linear_weights(vit.head) + _linear_weights(getattr(vit, "head_dist", None))


def _linear_weights(module: nn.Module | None) -> int:
    if module is None:
        return 0
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))
