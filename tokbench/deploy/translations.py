"""Equivalents of those operators that the exporters to ONNX lack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench.token_groups import summed_by_operators
from tokbench.vit.attention import received_from_matrix
from tokbench.vit.noise import hashed_by_operators

Table = dict[Any, Callable[..., Any]]
"""Functions by the operator that they stand for."""


def decompositions() -> Table:
    """Operators of tokbench's own, and what torch makes of writing to a diagonal, written with others of torch."""
    return {
        torch.ops.tokbench.received.default: received_from_matrix,
        torch.ops.tokbench.group_sum.default: summed_by_operators,
        torch.ops.tokbench.uniform.default: hashed_by_operators,
        torch.ops.aten.diagonal_scatter.default: _diagonal_scatter,
    }


def translations() -> Table:
    """Operators of torch, written with those of ONNX."""
    return {torch.ops.aten.sort.stable: _stable_sort}


def _diagonal_scatter(x: Tensor, source: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    if offset < 0:
        return _diagonal_scatter(x, source, -offset, dim2, dim1)
    moved = x.movedim((dim1, dim2), (-2, -1))
    rows, columns = moved.shape[-2:]
    row, column = torch.arange(rows, device=x.device)[:, None], torch.arange(columns, device=x.device)
    of_row = F.pad(source, (0, rows - source.shape[-1]))[..., None]
    return torch.where(column == row + offset, of_row, moved).movedim((-2, -1), (dim1, dim2))


def _stable_sort(x: Any, *, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """`sort` by ONNX's TopK, which puts the first of equal elements first."""
    from onnx_ir import DataType
    from onnxscript import opset18

    op: Any = opset18
    # Runtimes have TopK for signed integers of 32 and 64 bits only.
    small = x.dtype in (DataType.BOOL, DataType.UINT8, DataType.INT8)
    keys = op.Cast(x, to=DataType.INT32) if small else x
    values, index = op.TopK(keys, [x.shape[dim]], axis=dim, largest=int(descending), sorted=1)
    return (op.Cast(values, to=x.dtype) if small else values), index
