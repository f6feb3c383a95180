"""Which kernels of fused attention a model runs: PyTorch chooses among several, which differ in speed.

FlashAttention takes no bias, so that a method with proportional attention runs another kernel than the plain model.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tokbench.measure.call_timer import Forward
from tokbench.measure.dispatch import base_name

KERNELS: Mapping[str, str] = MappingProxyType(
    {
        "_scaled_dot_product_flash_attention": "flash",
        "_scaled_dot_product_flash_attention_for_cpu": "flash",
        "_scaled_dot_product_efficient_attention": "memory-efficient",
        "_scaled_dot_product_cudnn_attention": "cuDNN",
        "_scaled_dot_product_attention_math": "math",
        "_scaled_dot_product_attention_math_for_mps": "math",
        "_scaled_dot_product_fused_attention_overrideable": "fused",
    }
)
COMPOSITE = "scaled_dot_product_attention"


def attention_kernels(forward: Forward, images: Tensor) -> tuple[str, ...]:
    """The kernels of fused attention that one call runs, in alphabetical order; empty where none runs.

    Args:
        forward: The model, eager.
        images: (B, C, H, W) on its device.
    """
    with torch.inference_mode(), _AttentionWatch() as watch:
        forward(images)
    return tuple(sorted(watch.ran))


class _AttentionWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ran: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = base_name(func)
        if name in KERNELS:
            self.ran.add(KERNELS[name])
        elif name == COMPOSITE:  # without gradients it comes undecomposed
            with self:
                return func.decompose(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
