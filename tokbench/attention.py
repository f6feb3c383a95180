"""timm's self-attention opened up, so that a method can be told what it knows.

`attend` computes what `timm.layers.Attention` computes, operation for operation, and hands out its queries, keys and
values besides. `AttentionProbe` makes a Context's fields of them. It is a module of its own so that whatever it
computes is charged to the method that asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from tokbench.tokens import Tokens


@dataclass(frozen=True, eq=False)
class Heads:
    """One block's attention from the inside.

    Attributes:
        q: (B, H, P+N, Dh), queries, not scaled.
        k: (B, H, P+N, Dh).
        v: (B, H, P+N, Dh).
        scale: What the logits q·k are multiplied with.
        bias: (B, 1, 1, P+N), added to the logits of each key, or None.
        matrix: (B, H, P+N, P+N), the attention after softmax where it was computed, else None.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    bias: Tensor | None
    matrix: Tensor | None


def attend(
    attention: Attention, x: Tensor, bias: Tensor | None = None, *, matrix: bool = False
) -> tuple[Tensor, Heads]:
    """Run one attention layer.

    Args:
        attention: timm's layer; its fused kernel is used where the layer is set to it.
        x: (B, P+N, D), after the block's first norm.
        bias: (B, 1, 1, P+N) added to the logits, or None.
        matrix: Whether the attention matrix itself is wanted, which rules the fused kernel out.

    Returns:
        (B, P+N, D), and what it was computed from.
    """
    batch, n, _ = x.shape
    qkv = attention.qkv(x).reshape(batch, n, 3, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    q, k = attention.q_norm(q), attention.k_norm(k)
    weights = None
    if attention.fused_attn and not matrix:
        dropout = attention.attn_drop.p if attention.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    else:
        logits = (q * attention.scale) @ k.transpose(-2, -1)
        weights = (logits if bias is None else logits + bias).softmax(dim=-1)
        out = attention.attn_drop(weights) @ v
    out = out.transpose(1, 2).reshape(batch, n, -1)
    norm = getattr(attention, "norm", None)  # older timm has none
    if norm is not None:
        out = norm(out)
    out = attention.proj_drop(attention.proj(out))
    return out, Heads(q, k, v, attention.scale, bias, weights if matrix else None)


class AttentionProbe(nn.Module):
    """Computes the fields of a Context that a method declared, and nothing else."""

    def __init__(self, needs: frozenset[str]) -> None:
        """Take the names of the fields."""
        super().__init__()
        self.needs = needs

    def forward(self, heads: Heads, n_prefix: int, valid: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the fields.

        Args:
            heads: The block's attention.
            n_prefix: P.
            valid: (B, N) where the batch is padded, else None.

        Returns:
            The declared fields by name, in the shapes of `Context`.
        """
        fields: dict[str, Tensor] = {}
        wide = torch.promote_types(
            heads.q.dtype, torch.float32
        )  # a sum over 10^5 probabilities outgrows half precision
        if "keys" in self.needs:
            fields["keys"] = heads.k[:, :, n_prefix:].mean(dim=1)
        if "values" in self.needs:
            fields["values"] = heads.v[:, :, n_prefix:]
        if "attention" in self.needs:
            assert heads.matrix is not None
            fields["attention"] = heads.matrix
        if "cls_attention" in self.needs:
            fields["cls_attention"] = _rows(heads, queries=1)[:, :, 0, n_prefix:].mean(dim=1, dtype=wide)
        if "received" in self.needs:
            rows = _rows(heads, queries=heads.q.shape[2])[..., n_prefix:]
            if valid is not None:  # padding asks nothing
                rows = rows * F.pad(valid, (n_prefix, 0), value=True)[:, None, :, None]
            fields["received"] = rows.sum(dim=(1, 2), dtype=wide)
        return fields


def log_size_bias(tokens: Tokens, *, proportional: bool) -> Tensor | None:
    """What is added to the logits of each key: log(size) where attention is proportional, -inf for padding.

    Args:
        tokens: N patch tokens.
        proportional: Whether sizes count (ToMe, Bolya et al. 2023, eq. 1).

    Returns:
        (B, 1, 1, P+N) in the tokens' dtype, or None where nothing is to be added.
    """
    if not proportional and tokens.valid is None:
        return None
    bias = tokens.size.log() if proportional else torch.zeros_like(tokens.size)
    if tokens.valid is not None:
        bias = bias.masked_fill(~tokens.valid, -torch.inf)
    bias = F.pad(bias, (tokens.n_prefix, 0))
    return bias[:, None, None].to(tokens.x.dtype)


def _rows(heads: Heads, queries: int) -> Tensor:
    """The first rows of the attention matrix, (B, H, queries, P+N)."""
    if heads.matrix is not None:
        return heads.matrix[:, :, :queries]
    logits = (heads.q[:, :, :queries] * heads.scale) @ heads.k.transpose(-2, -1)
    if heads.bias is not None:
        logits = logits + heads.bias
    return logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
