"""The numeric types that models run in: pure half precision, or float32 weights with automatic mixed precision (AMP).

In pure half precision, weights, layer norms and the residual stream are all of that type. With AMP, `torch.autocast`
runs matrix products in half precision and keeps the rest in float32, as most published GPU times were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType

import torch

from tokbench.names import Dtype

# The type of the weights, and of the images that models read.
DTYPES: Mapping[Dtype, torch.dtype] = MappingProxyType(
    {
        "fp32": torch.float32,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
        "amp-bf16": torch.float32,
        "amp-fp16": torch.float32,
    }
)
AUTOCAST: Mapping[Dtype, torch.dtype] = MappingProxyType({"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16})


def mixed_precision(dtype: Dtype, device: torch.device) -> AbstractContextManager[object]:
    """Autocast for the types that ask for it; nothing for the others.

    Weights are cast at every use: a cache that lives as long as the block would leave the casts out of all calls but
    the first, while a program that enters autocast for each batch makes them for each batch.

    Args:
        dtype: Of the suite.
        device: Where the models run.
    """
    if dtype not in AUTOCAST:
        return nullcontext()
    return torch.autocast(device.type, AUTOCAST[dtype], cache_enabled=False)
