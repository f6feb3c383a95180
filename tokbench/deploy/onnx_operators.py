"""ONNX equivalents of PyTorch operators for which the exporter has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For `torch.onnx.export`: what replaces an operator."""
    from onnxscript import opset18 as op

    def sort_stable(self: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
        # TopK puts the earlier of two equal elements first, whether it looks for the largest or for the smallest.
        length = op.Reshape(op.Gather(op.Shape(self), op.Constant(value_int=dim), axis=0), op.Constant(value_ints=[1]))
        return op.TopK(self, length, axis=dim, largest=int(descending), sorted=1)

    return {torch.ops.aten.sort.stable: sort_stable}
