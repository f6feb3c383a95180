"""The families of timm models that a method can be put into: one adapter, in one file, for each.

`ADAPTERS` lists them. To support another family, write an `Adapter` for it and add it there.
"""

from __future__ import annotations

from torch import nn

from tokbench.vit.adapters.adapter import Adapter, TimmViT
from tokbench.vit.adapters.eva import EvaAdapter
from tokbench.vit.adapters.vision_transformer import VisionTransformerAdapter

__all__ = ["ADAPTERS", "Adapter", "TimmViT", "adapter_of", "has_rotary"]

ADAPTERS: tuple[Adapter, ...] = (VisionTransformerAdapter(), EvaAdapter())


def has_rotary(vit: TimmViT) -> bool:
    """Whether a model has rotary positions."""
    return getattr(vit, "rope", None) is not None


def adapter_of(vit: nn.Module) -> Adapter | None:
    """The adapter for a model's class, whether or not it supports this model; None if there is none."""
    return next((adapter for adapter in ADAPTERS if isinstance(vit, adapter.model)), None)
