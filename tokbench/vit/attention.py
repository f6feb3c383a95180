"""timm's self-attention with access to its queries, keys and values.

`attend` performs the same operations as timm's classes of attention, from the queries, keys and values that the adapter
of the model's family has computed, and also returns them.
`AttentionProbe` computes the fields of a Context from them. It is a separate module so that its compute is charged to
the method that needs the fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokbench.token_groups import has_triton
from tokbench.tokens import Tokens
from tokbench.vit.presence import present_softmax, seen_by_itself

if TYPE_CHECKING:
    from tokbench.vit.adapters.rotary import Rotation

CACHE = 2**21  # bytes of cache per core: logits that fit into it are summed twice as fast as those in main memory
# The widest heads for which the kernel is used: beyond, it keeps its tiles in neither registers nor shared memory.
WIDEST = {torch.float32: 64, torch.float16: 128, torch.bfloat16: 128}


@dataclass(frozen=True, eq=False)
class Projected:
    """What attention reads.

    Attributes:
        q: (B, H, P+N, Dh), queries, before scaling.
        k: (B, H, P+N, Dh).
        v: (B, H, P+N, Dh).
        unrotated: (B, H, P+N, Dh), the keys before rotation; None where nothing is rotated.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    unrotated: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Heads:
    """The intermediate tensors of one block's attention.

    Attributes:
        q: (B, H, P+N, Dh), queries, before scaling.
        k: (B, H, P+N, Dh), as attention uses them: after rotation.
        v: (B, H, P+N, Dh).
        scale: The factor of the logits q·k.
        bias: (B, 1, 1, P+N), added to the logits of each key, or None.
        matrix: (B, H, P+N, P+N), the attention after the softmax if it was computed, else None.
        unrotated: (B, H, P+N, Dh), the keys before rotation; None where nothing is rotated.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    bias: Tensor | None
    matrix: Tensor | None
    unrotated: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Passed:
    """What a block computed on the way to a reduction, as far as the method reads it.

    Attributes:
        heads: The intermediate tensors of its attention, or None.
        update: (B, P+N, D), what its last layer so far added to the tokens, or None.
        rotation: The rotary positions of its tokens, which hold until the next reduction; None without.
        size: (B, N), of the tokens that its attention read, or None before the first block.
        bias: (B, 1, 1, P+N), what was added to the logits of each key for these sizes, or None.
    """

    heads: Heads | None = None
    update: Tensor | None = None
    rotation: Rotation | None = None
    size: Tensor | None = None
    bias: Tensor | None = None


def attend(
    attention: Any,
    x: Tensor,
    projected: Projected,
    bias: Tensor | None = None,
    presence: Tensor | None = None,
    *,
    matrix: bool = False,
) -> tuple[Tensor, Heads]:
    """Run one attention layer.

    Args:
        attention: timm's layer; its fused kernel is used if the layer is configured for it.
        x: (B, P+N, D), what the layer reads.
        projected: Its queries, keys and values.
        bias: (B, 1, 1, P+N) added to the logits, or None.
        presence: (B, 1, 1, P+N), how far each key is present, or None. It rules out the fused kernel.
        matrix: Whether to return the attention matrix, which rules out the fused kernel.

    Returns:
        (B, P+N, D), and the tensors from which it was computed.
    """
    batch, n, _ = x.shape
    q, k, v = projected.q, projected.k, projected.v
    weights = None
    matrix = matrix or presence is not None
    if attention.fused_attn and not matrix:
        dropout = attention.attn_drop.p if attention.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    else:
        logits = (q * attention.scale) @ k.transpose(-2, -1)
        logits = logits if bias is None else logits + bias
        if presence is None:
            weights = logits.softmax(dim=-1)
        else:
            weights = present_softmax(logits, seen_by_itself(presence)).to(v.dtype)
        out = attention.attn_drop(weights) @ v
    out = out.transpose(1, 2).reshape(batch, n, -1)
    norm, gate = getattr(attention, "norm", None), getattr(attention, "gate", None)  # missing in older timm versions
    if norm is not None:
        out = norm(out)
    if gate is not None:
        out = out * gate(x).sigmoid()
    out = attention.proj_drop(attention.proj(out))
    return out, Heads(q, k, v, attention.scale, bias, weights if matrix else None, projected.unrotated)


class AttentionProbe(nn.Module):
    """Computes those fields of a Context that a method declares in `needs` and that come from attention."""

    def __init__(self, needs: frozenset[str]) -> None:
        """Store the names of the fields."""
        super().__init__()
        self.needs = needs

    def forward(self, heads: Heads, n_prefix: int, valid: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the fields.

        Args:
            heads: The block's attention.
            n_prefix: P.
            valid: (B, N), False at padding, or the tokens' presence; None if all tokens are simply present.

        Returns:
            The declared fields by name, in the shapes of `Context`; `update` is not among them.
        """
        fields: dict[str, Tensor] = {}
        if "keys" in self.needs:
            fields["keys"] = heads.k[:, :, n_prefix:].mean(dim=1)
        if "keys_unrotated" in self.needs:
            unrotated = heads.k if heads.unrotated is None else heads.unrotated
            fields["keys_unrotated"] = unrotated[:, :, n_prefix:].mean(dim=1)
        if "values" in self.needs:
            fields["values"] = heads.v[:, :, n_prefix:]
        if "attention" in self.needs:
            assert heads.matrix is not None
            fields["attention"] = heads.matrix
        if "cls_attention" in self.needs:
            fields["cls_attention"] = _rows(heads, queries=1)[:, :, 0, n_prefix:].mean(dim=1, dtype=_wide(heads.q))
        if "received" in self.needs:
            needs_gradient = torch.is_grad_enabled() and (heads.q.requires_grad or heads.k.requires_grad)
            if needs_gradient or heads.matrix is not None:
                fields["received"] = _column_sums(heads, valid, n_prefix)
            else:
                fields["received"] = received(heads.q, heads.k, heads.bias, valid, heads.scale, n_prefix)
        return fields


def log_size_bias(tokens: Tokens, *, proportional: bool) -> Tensor | None:
    """The bias of the logits of each key: log(size) if attention is proportional, -inf at padding.

    Args:
        tokens: N patch tokens.
        proportional: Whether to add log(size) (ToMe, Bolya et al. 2023, eq. 1).

    Returns:
        (B, 1, 1, P+N) in the tokens' dtype, or None if there is nothing to add.
    """
    if not proportional and tokens.valid is None:
        return None
    bias = tokens.size.log() if proportional else torch.zeros_like(tokens.size)
    if tokens.valid is not None:
        bias = bias.masked_fill(~tokens.valid, -torch.inf)
    bias = F.pad(bias, (tokens.n_prefix, 0))
    return bias[:, None, None].to(tokens.x.dtype)


@torch.library.custom_op(
    "tokbench::received",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor? bias, Tensor? valid, float scale, int prefix) -> Tensor",
)
def received(q: Tensor, k: Tensor, bias: Tensor | None, valid: Tensor | None, scale: float, prefix: int) -> Tensor:
    """The attention that each patch token receives, without the attention matrix of a whole batch; no gradient.

    A custom operator, so that a compiler sees one call instead of a kernel or a loop.

    Args:
        q: (B, H, P+N, Dh).
        k: (B, H, P+N, Dh).
        bias: (B, 1, 1, P+N), added to the logits of each key, or None.
        valid: (B, N), False at padding, whose queries are ignored, or None.
        scale: The factor of the logits.
        prefix: P.

    Returns:
        (B, N), float32 or wider, summed over heads and queries.
    """
    if _kernel_runs(q):
        from tokbench.vit import kernels  # Triton is not installed without a GPU

        with torch.cuda.device(q.device):
            return kernels.received(q, k, bias, valid, scale, prefix)
    batch, heads, n, _ = q.shape
    together = batch
    if q.device.type == "cpu":
        together = max(1, torch.get_num_threads() * CACHE // (heads * n * n * 4))
    sums = []
    for first in range(0, batch, together):
        some = slice(first, first + together)
        part_bias, part_valid = (None if t is None else t[some] for t in (bias, valid))
        sums.append(received_from_matrix(q[some], k[some], part_bias, part_valid, scale, prefix))
    return torch.cat(sums)


def received_from_matrix(
    q: Tensor, k: Tensor, bias: Tensor | None, valid: Tensor | None, scale: float, prefix: int
) -> Tensor:
    """The same as `received`, from the attention matrix of the whole batch; what exporters see of it."""
    return _column_sums(Heads(q, k, k, scale, bias, None), valid, prefix)


@received.register_fake
def _(q: Tensor, k: Tensor, bias: Tensor | None, valid: Tensor | None, scale: float, prefix: int) -> Tensor:
    return q.new_empty(q.shape[0], q.shape[2] - prefix, dtype=_wide(q))


def _kernel_runs(q: Tensor) -> bool:
    return (
        q.is_cuda
        and q.shape[3] <= WIDEST.get(q.dtype, 0)
        and torch.cuda.get_device_capability(q.device) >= (8, 0)
        and has_triton()
    )


def _column_sums(heads: Heads, valid: Tensor | None, prefix: int) -> Tensor:
    """(B, N), the attention that the patch tokens receive, from the attention matrix."""
    rows = _rows(heads, queries=heads.q.shape[2])[..., prefix:]
    if valid is not None:  # queries at padding do not count, nor do absent ones
        rows = rows * F.pad(valid, (prefix, 0), value=True)[:, None, :, None]
    return rows.sum(dim=(1, 2), dtype=_wide(heads.q))


def _wide(x: Tensor) -> torch.dtype:
    """The type of sums: half precision is too coarse for a sum over 10^5 probabilities."""
    return torch.promote_types(x.dtype, torch.float32)


def _rows(heads: Heads, queries: int) -> Tensor:
    """The first rows of the attention matrix, (B, H, queries, P+N)."""
    if heads.matrix is not None:
        return heads.matrix[:, :, :queries]
    logits = (heads.q[:, :, :queries] * heads.scale) @ heads.k.transpose(-2, -1)
    if heads.bias is not None:
        logits = logits + heads.bias
    return logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
