"""Which kernels of fused attention ran."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.models.vision_transformer import VisionTransformer
from torch.nn.attention import SDPBackend, sdpa_kernel

from tokbench.measure.attention_kernels import attention_kernels
from tokbench.vit.variants import without_fusion

IMAGES = torch.zeros(1, 3, 32, 32)


def test_the_kernel_that_pytorch_chose_is_named(tiny_vit: Callable[..., VisionTransformer]) -> None:
    vit = tiny_vit()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        assert attention_kernels(vit, IMAGES) == ("flash",)
    with sdpa_kernel(SDPBackend.MATH):
        assert attention_kernels(vit, IMAGES) == ("math",)


def test_attention_that_is_not_fused_runs_none(tiny_vit: Callable[..., VisionTransformer]) -> None:
    assert attention_kernels(without_fusion(tiny_vit()), IMAGES) == ()
