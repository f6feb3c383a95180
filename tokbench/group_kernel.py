"""The sums over groups of tokens as one Triton kernel, without atomic additions.

`tokbench.token_groups` has the same in PyTorch's operators, as reference in tests and as fallback.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 32  # vectors that are added at once
WIDEST = 256  # channels of a program


def group_sums(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """Sum the vectors of each group, in float32 or wider, in an order that depends on their positions only.

    Args:
        values: (B, N, D) floating-point.
        owner: (B, N) int64; vectors outside [0, count) are left out.
        count: K.

    Returns:
        (B, K, D), contiguous, in the type of the values.
    """
    batch, n, dim = values.shape
    values = values if values.stride(2) == 1 else values.contiguous()
    owner = owner.contiguous()
    sums = torch.empty(batch, count, dim, dtype=values.dtype, device=values.device)
    width = min(WIDEST, triton.next_power_of_2(dim))
    programs = (batch * count, triton.cdiv(dim, width))
    if sums.numel():
        _group_sums[programs](values, owner, sums, n, dim, count, *values.stride()[:2], ROWS=ROWS, WIDTH=width)
    return sums


@triton.jit  # type: ignore[untyped-decorator]
def _group_sums(  # type: ignore[no-untyped-def]
    values, owner, sums, n, dim, count, stride_b, stride_n, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    """Some channels of one group's sum. Vectors of other groups are not read."""
    image, group = tl.program_id(0) // count, tl.program_id(0) % count
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    first = values + image.to(tl.int64) * stride_b
    wide = tl.float64 if values.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((WIDTH,), wide)
    for start in range(0, n, ROWS):
        row = start + tl.arange(0, ROWS)
        member = tl.load(owner + image.to(tl.int64) * n + row, mask=row < n, other=-1) == group
        inside = member[:, None] & (d < dim)[None, :]
        part = tl.load(first + row[:, None] * stride_n + d[None, :], mask=inside, other=0.0)
        total += tl.sum(part.to(wide), axis=0)
    tl.store(sums + tl.program_id(0).to(tl.int64) * dim + d, total, mask=d < dim)
