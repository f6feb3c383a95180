"""How many tokens each block really processed, counted at the modules that read them instead of asked of the method."""

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

    A batch is as long as its longest image; shorter images are padded, and padding is computed like any other token.

    Attributes:
        attention: n = P+N, the tokens that the attention reads, including padding.
        mlp: n = P+N, the tokens that the MLP reads, including padding.
        leaving: N, the patch tokens that leave the block, including padding.
        images: For each image of the batch, the patch tokens that leave each block, without padding.
    """

    attention: tuple[int, ...]
    mlp: tuple[int, ...]
    leaving: tuple[int, ...]
    images: tuple[tuple[int, ...], ...]


def count_tokens(model: DownsampledViT, images: Tensor) -> Ledger:
    """Run the model once and record how many tokens each block processes.

    Args:
        model: A downsampled ViT.
        images: (B, C, H, W).
    """
    attention: list[int] = []
    mlp: list[int] = []
    leaving: list[int] = []
    valid: list[Tensor | None] = []

    def record_in(counts: list[int]) -> Any:
        def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            counts.append(inputs[0].shape[1])

        return record

    def observe(depth: int, tokens: Tokens) -> None:
        leaving.append(tokens.n_patches)
        valid.append(tokens.valid)  # summed after the run: here it would count as the model's work

    hooks = []
    for block in model.vit.blocks:
        hooks.append(block.attn.proj.register_forward_pre_hook(record_in(attention)))
        hooks.append(block.mlp.register_forward_pre_hook(record_in(mlp)))
    try:
        with torch.inference_mode():
            model(images, observe=observe)
            per_block = [
                [n] * len(images) if mask is None else mask.sum(dim=1).tolist()
                for n, mask in zip(leaving, valid, strict=True)
            ]
    finally:
        for hook in hooks:
            hook.remove()
    return Ledger(tuple(attention), tuple(mlp), tuple(leaving), tuple(zip(*per_block, strict=True)))


def closed_form(model: DownsampledViT, ledger: Ledger) -> int:
    """The backbone's MACs for one image, computed from its token counts, including padding.

    For a plain ViT of width C this is, per block, 4nC² + 2n²C with the n of the attention and 8nC² with the n of the
    MLP, plus patch embedding, head and the pooling. It is written in terms of the sizes of the weights, so that it also
    holds for other MLP ratios, for SwiGLU, and for heads that share keys and values.
    """
    vit = model.vit
    total: int = vit.patch_embed.proj.weight.numel() * vit.patch_embed.num_patches
    for block, n_attention, n_mlp in zip(vit.blocks, ledger.attention, ledger.mlp, strict=True):
        attention = block.attn
        total += n_attention * _linear_weights(attention)
        total += 2 * n_attention**2 * attention.proj.in_features
        total += n_mlp * _linear_weights(block.mlp)
    if vit.global_pool == "avg":
        total += ledger.leaving[-1] * vit.embed_dim
    if vit.global_pool == "map":
        total += _attention_pool(
            vit.attn_pool, ledger.leaving[-1] + model.adapter.pools_prefix(vit) * vit.num_prefix_tokens
        )
    return total + _linear_weights(vit.head) + _linear_weights(getattr(vit, "head_dist", None))


def _attention_pool(pool: Any, n: int) -> int:
    """Attention pooling over n tokens: keys and values of each, and the rest for the latent queries only."""
    per_token = pool.kv.weight.numel()
    per_query = _linear_weights(pool) - per_token
    latents: int = pool.latent_len
    attended: int = 2 * n * pool.num_heads * pool.head_dim
    total: int = n * per_token + latents * (per_query + attended)
    return total


def _linear_weights(module: nn.Module | None) -> int:
    if module is None:
        return 0
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))
