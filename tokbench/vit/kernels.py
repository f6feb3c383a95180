"""Triton kernels for CUDA. Each has a plain PyTorch equivalent elsewhere, used as reference in tests and as fallback.

They use no atomic additions, so the sums are the same on every run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64  # queries and keys in a tile
LOWEST = tl.constexpr(-3e38)  # below every logit, but finite: the difference of two is not NaN


def received(q: Tensor, k: Tensor, bias: Tensor | None, valid: Tensor | None, scale: float, prefix: int) -> Tensor:
    """The attention that each patch token receives, without an n×n matrix in memory.

    received_j = Σ_h Σ_i exp(scale q_i·k_j + bias_j - lse_i) is computed in two passes, each of which computes the
    logits: the first for each query's log-sum-exp over the keys, the second for each key's sum over the queries.

    Args:
        q: (B, H, n, Dh), float32, float16 or bfloat16, on a CUDA device.
        k: (B, H, n, Dh).
        bias: (B, 1, 1, n), added to the logits of each key, or None.
        valid: (B, N) bool, False at padding, whose queries are ignored, or None.
        scale: The factor of the logits.
        prefix: P, the number of tokens before the N patch tokens.

    Returns:
        (B, N) float32.
    """
    batch, heads, n, width = q.shape
    q, k = (t if t.stride(3) == 1 else t.contiguous() for t in (q, k))
    bias = None if bias is None else bias.expand(batch, 1, 1, n).contiguous()
    valid = None if valid is None else valid.contiguous()
    lse = torch.empty(batch, heads, n, device=q.device)
    sums = torch.empty(batch, heads, n - prefix, device=q.device)
    blocks: dict[str, Any] = {"BLOCK": BLOCK, "WIDTH": max(16, triton.next_power_of_2(width))}
    common = (heads, n, width, scale, prefix, *q.stride()[:3], *k.stride()[:3])
    programs = (batch * heads * triton.cdiv(n, BLOCK),)  # programs of a head are adjacent: they share data
    _log_sum_exps[programs](q, k, bias, valid, lse, *common, **blocks)
    _column_sums[programs](q, k, bias, lse, sums, *common, **blocks)
    return sums.sum(dim=1)


@triton.jit  # type: ignore[untyped-decorator]
def _tile(tensor, image, head, place, n, width, stride_b, stride_h, stride_n, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows `place` of one head, (BLOCK, WIDTH); 0 beyond the last row and beyond the head's width."""
    d = tl.arange(0, WIDTH)
    start = tensor + image.to(tl.int64) * stride_b + head * stride_h
    inside = (place < n)[:, None] & (d < width)[None, :]
    return tl.load(start + place[:, None] * stride_n + d[None, :], mask=inside, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _log_sum_exps(  # type: ignore[no-untyped-def]
    q, k, bias, valid, lse,
    heads, n, width, scale, prefix, q_b, q_h, q_n, k_b, k_h, k_n,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Each query's log-sum-exp over all keys; infinite at padding, so that a padded query contributes nothing."""
    tiles = tl.cdiv(n, BLOCK)
    unit = tl.program_id(0) // tiles
    image, head = unit // heads, unit % heads
    row = tl.program_id(0) % tiles * BLOCK + tl.arange(0, BLOCK)
    queries = _tile(q, image, head, row, n, width, q_b, q_h, q_n, WIDTH)
    top = tl.full((BLOCK,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        column = start + tl.arange(0, BLOCK)
        keys = _tile(k, image, head, column, n, width, k_b, k_h, k_n, WIDTH)
        logits = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
        if bias is not None:
            logits += tl.load(bias + image * n + column, mask=column < n, other=0.0).to(tl.float32)[None, :]
        logits = tl.where((column < n)[None, :], logits, float("-inf"))
        higher = tl.maximum(top, tl.max(logits, axis=1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(logits - higher[:, None]), axis=1)
        top = higher
    result = top + tl.log(total)
    if valid is not None:
        patch = row - prefix
        is_valid = tl.load(valid + image * (n - prefix) + patch, mask=(patch >= 0) & (row < n), other=1)
        result = tl.where(is_valid != 0, result, float("inf"))
    tl.store(lse + unit * n + row, result, mask=row < n)


@triton.jit  # type: ignore[untyped-decorator]
def _column_sums(  # type: ignore[no-untyped-def]
    q, k, bias, lse, sums,
    heads, n, width, scale, prefix, q_b, q_h, q_n, k_b, k_h, k_n,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Each patch token's sum over all queries of one head, added in the order of the queries."""
    tiles = tl.cdiv(n, BLOCK)
    unit = tl.program_id(0) // tiles
    image, head = unit // heads, unit % heads
    column = tl.program_id(0) % tiles * BLOCK + tl.arange(0, BLOCK)
    keys = _tile(k, image, head, column, n, width, k_b, k_h, k_n, WIDTH)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        row = start + tl.arange(0, BLOCK)
        queries = _tile(q, image, head, row, n, width, q_b, q_h, q_n, WIDTH)
        logits = tl.dot(keys, tl.trans(queries), input_precision="ieee") * scale
        if bias is not None:
            logits += tl.load(bias + image * n + column, mask=column < n, other=0.0).to(tl.float32)[:, None]
        given = tl.load(lse + unit * n + row, mask=row < n, other=float("inf"))
        total += tl.sum(tl.exp(logits - given[None, :]), axis=1)
    place = unit * (n - prefix) + column - prefix
    tl.store(sums + place, total, mask=(column >= prefix) & (column < n))
