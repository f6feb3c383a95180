"""timm's `Eva`: EVA, EVA-02, RoPE-ViT, DINOv3, Perception Encoder and others, most of them with rotary positions."""

from __future__ import annotations

from typing import Any

import timm.layers
import torch
from timm.layers import apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn
from torch.nn import functional as F

from tokbench.names import Position
from tokbench.tokens import Tokens
from tokbench.vit.adapters.adapter import Adapter, TimmAttention, TimmBlock, TimmViT
from tokbench.vit.adapters.rotary import Rotation, rotary_table, unknown_table
from tokbench.vit.attention import Projected

_ATTENTION_ROPE = getattr(timm.layers, "AttentionRope", EvaAttention)  # missing in older timm versions


class EvaAdapter(Adapter):
    """Blocks x + γ·attention(norm(x)), or with the norm after the layer; queries and keys may be rotated."""

    model = Eva
    modules = ("eva",)
    block_classes = (EvaBlock, EvaBlockPostNorm)
    attention_classes = (EvaAttention, _ATTENTION_ROPE)

    def refusal(self, vit: TimmViT) -> str:
        """Why a model is not supported; empty if it is."""
        if type(vit).forward_features is not Eva.forward_features:
            return "it has its own forward pass"
        if vit.patch_drop is not None:
            return "it drops random patches in training"
        return unknown_table(vit.rope) if vit.rope is not None else ""

    def embed(self, vit: TimmViT, images: Tensor) -> Tokens:
        """The input tokens of the first block."""
        x = vit.patch_embed(images)
        grid = tuple(x.shape[1:3]) if x.ndim == 4 else vit.patch_embed.grid_size
        x, _ = Eva._pos_embed(_WithoutRotary(vit), x)
        x = getattr(vit, "norm_pre", nn.Identity())(x)  # missing in older timm versions
        tokens = Tokens.from_sequence(x, grid, vit.num_prefix_tokens)
        return tokens if vit.rope is None else tokens.with_rotary()

    def rotation(self, vit: TimmViT, tokens: Tokens, position: Position) -> Rotation | None:
        """The rotary positions of the tokens; None if the model has none."""
        if vit.rope is None:
            return None
        return Rotation.of(vit.rope, rotary_table(vit, tokens.grid), tokens, position)

    def attention_input(self, block: TimmBlock, x: Tensor) -> Tensor:
        """The normalised input; the input itself where the norm comes after the layer."""
        return x if isinstance(block, EvaBlockPostNorm) else block.norm1(x)

    def attention(self, block: TimmBlock, x: Tensor, rotary: Tensor | None) -> Tensor:
        """A block's attention as the model computes it."""
        return block.attn(x, rope=rotary)

    def project(self, attention: TimmAttention, x: Tensor, rotary: Tensor | None) -> Projected:
        """Queries, keys and values, from one matrix or three; queries and keys rotated."""
        q, k, v = _projections(attention, x)
        q, k = getattr(attention, "q_norm", nn.Identity())(q), getattr(attention, "k_norm", nn.Identity())(k)
        unrotated = k
        if rotary is not None:
            q, k = (_rotated(attention, part, rotary).type_as(v) for part in (q, k))
        groups = getattr(attention, "num_kv_groups", 1)
        if groups > 1:  # heads that share their keys and values
            k, v, unrotated = (part.repeat_interleave(groups, dim=1) for part in (k, v, unrotated))
        return Projected(q, k, v, None if rotary is None else unrotated)

    def attention_update(self, block: TimmBlock, y: Tensor) -> Tensor:
        """The output after the norm, or times γ."""
        return block.drop_path1(block.norm1(y) if isinstance(block, EvaBlockPostNorm) else _scaled(block.gamma_1, y))

    def mlp_update(self, block: TimmBlock, x: Tensor) -> Tensor:
        """The MLP's output after the norm, or times γ."""
        if isinstance(block, EvaBlockPostNorm):
            return block.drop_path2(block.norm2(block.mlp(x)))
        return block.drop_path2(_scaled(block.gamma_2, block.mlp(block.norm2(x))))

    def pools_prefix(self, vit: TimmViT) -> bool:
        """Attention pooling reads all tokens, the mean only the patches."""
        return getattr(vit, "attn_pool", None) is not None


class _WithoutRotary:
    """A model as `_pos_embed` sees it, but without rotary positions.

    With them, `_pos_embed` would compute the table a second time, which takes long where each block has its own.
    """

    rope = None

    def __init__(self, vit: TimmViT) -> None:
        self._vit = vit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vit, name)


def _projections(attention: TimmAttention, x: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values, each (B, H, P+N, Dh), before their norms."""
    batch, n, _ = x.shape
    if attention.qkv is None:
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        return tuple(part(x).reshape(batch, n, -1, _width(attention)).transpose(1, 2) for part in parts)
    if getattr(attention, "q_bias", None) is None:
        qkv = attention.qkv(x)
    else:
        bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
        separate = attention.qkv_bias_separate
        qkv = attention.qkv(x) + bias if separate else F.linear(x, weight=attention.qkv.weight, bias=bias)
    return qkv.reshape(batch, n, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def _width(attention: TimmAttention) -> int:
    """Dh, of which older versions of timm keep no record."""
    return attention.q_proj.out_features // attention.num_heads


def _rotated(attention: TimmAttention, part: Tensor, rotary: Tensor) -> Tensor:
    """Queries or keys (B, H, P+N, Dh), of which those of the patch tokens are rotated."""
    prefix, patches = part[:, :, : attention.num_prefix_tokens], part[:, :, attention.num_prefix_tokens :]
    half = {"half": True} if getattr(attention, "rotate_half", False) else {}  # no argument in older timm versions
    return torch.cat([prefix, apply_rot_embed_cat(patches, rotary, **half)], dim=2)


def _scaled(gamma: Tensor | None, y: Tensor) -> Tensor:
    return y if gamma is None else gamma * y
