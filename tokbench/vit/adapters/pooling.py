"""From the tokens that leave the last block to the features that the head reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokbench.tokens import Tokens
from tokbench.vit.presence import key_presence, present_softmax
from tokbench.vit.reduction import reduced


def pooled(vit: Any, tokens: Tokens, bias: Tensor | None, *, prefix: bool) -> Tensor:
    """The features (B, D) that the head reads.

    A mean over tokens weights each by the number of image patches that it represents, and by its presence.

    Args:
        vit: A timm model that pools by class token, mean or attention.
        tokens: The output of the last block.
        bias: (B, 1, 1, P+N), added to the logits of attention pooling, or None.
        prefix: Whether the mean or the attention also reads the prefix tokens.
    """
    x = vit.norm(tokens.x)
    if not reduced(tokens) or vit.global_pool == "token":
        return vit.forward_head(x, pre_logits=True)
    if vit.global_pool == "avg":
        features = _average(tokens, x, prefix=prefix)
    else:
        start = 0 if prefix else tokens.n_prefix
        bias, presence = (None if one is None else one[..., start:] for one in (bias, key_presence(tokens)))
        features = attention_pool(vit.attn_pool, x[:, start:], bias, presence)
    return vit.head_drop(vit.fc_norm(features))


def attention_pool(pool: Any, x: Tensor, bias: Tensor | None, presence: Tensor | None = None) -> Tensor:
    """What timm's `AttentionPoolLatent` computes, with a bias on the logits.

    Args:
        pool: The layer.
        x: (B, n, D), after the model's norm.
        bias: (B, 1, 1, n), or None.
        presence: (B, 1, 1, n), how far each token is present, or None.

    Returns:
        (B, D).
    """
    batch, n, dim = x.shape
    q = _queries(pool, batch)
    k, v = pool.kv(x).reshape(batch, n, 2, pool.num_heads, pool.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    k = pool.k_norm(k)
    if pool.fused_attn and presence is None:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    else:
        logits = (q * pool.scale) @ k.transpose(-2, -1)
        logits = logits if bias is None else logits + bias
        weights = logits.softmax(dim=-1) if presence is None else present_softmax(logits, presence).to(v.dtype)
        out = weights @ v
    out = pool.proj_drop(pool.proj(out.transpose(1, 2).reshape(batch, pool.latent_len, dim)))
    if pool.mlp is not None:
        out = out + pool.mlp(pool.norm(out))
    return out[:, 0] if pool.pool == "token" else out.mean(1)


class PoolingProbe(nn.Module):
    """The attention that the pooling query would pay to the tokens between two blocks.

    A module without parameters, so that its compute is charged to the method that reads the result.
    """

    def forward(self, vit: Any, tokens: Tokens, bias: Tensor | None, *, prefix: bool) -> Tensor:
        """Attention of the pooling query, mean over heads.

        Args:
            vit: A model with attention pooling; its final norm comes first, as it does after the last block.
            tokens: N patch tokens.
            bias: (B, 1, 1, P+N), added to the logits, or None.
            prefix: Whether pooling also reads the prefix tokens.

        Returns:
            (B, N), float32 or wider. A row sums to 1, or to less where pooling also reads the prefix tokens.
        """
        pool, start = vit.attn_pool, 0 if prefix else tokens.n_prefix
        x = vit.norm(tokens.x[:, start:])
        batch, n, dim = x.shape
        keys = F.linear(x, pool.kv.weight[:dim], None if pool.kv.bias is None else pool.kv.bias[:dim])
        k = pool.k_norm(keys.reshape(batch, n, pool.num_heads, pool.head_dim).transpose(1, 2))
        logits = (_queries(pool, batch)[:, :, :1] * pool.scale) @ k.transpose(-2, -1)
        if bias is not None:
            logits = logits + bias[..., start:]
        presence, wide = key_presence(tokens), torch.promote_types(logits.dtype, torch.float32)
        if presence is None:
            weights = logits.softmax(dim=-1, dtype=wide)
        else:
            weights = present_softmax(logits, presence[..., start:])
        return weights[:, :, 0, tokens.n_prefix - start :].mean(dim=1)


def _queries(pool: Any, batch: int) -> Tensor:
    """(B, H, latents, Dh)."""
    q = pool.latent.expand(batch, -1, -1)
    if isinstance(pool.q, nn.Linear):  # not called as a module: its compute is that of the caller
        q = F.linear(q, pool.q.weight, pool.q.bias)
    return pool.q_norm(q.reshape(batch, pool.latent_len, pool.num_heads, pool.head_dim).transpose(1, 2))


def _average(tokens: Tokens, x: Tensor, *, prefix: bool) -> Tensor:
    """The mean of x (B, P+N, D) over tokens, each weighted by the number of image patches it represents."""
    weight = tokens.size
    for present in (tokens.valid, tokens.presence):
        weight = weight if present is None else weight * present
    if prefix:
        weight = F.pad(weight, (tokens.n_prefix, 0), value=1.0)
    else:
        x = x[:, tokens.n_prefix :]
    weight = (weight / weight.sum(dim=1, keepdim=True)).to(x.dtype)
    return (weight[:, None] @ x)[:, 0]
