"""The architectures of timm's that belong to a supported family, and which of them `DownsampledViT` supports."""

from __future__ import annotations

from dataclasses import dataclass

import timm
import torch

from tokbench.vit.adapters import ADAPTERS, Adapter, TimmViT, has_rotary
from tokbench.vit.supported import UnsupportedModelError, check_supported

POOLINGS = {"token": "class token", "avg": "mean", "map": "attention"}


@dataclass(frozen=True)
class Architecture:
    """One of timm's architectures.

    Attributes:
        name: timm's name.
        family: timm's class, each of which has one adapter.
        positions: `absolute`, `rotary`, `absolute + rotary` or `none`.
        pooling: What the head reads: `class token`, `mean` or `attention`.
        classes: How many the head of timm's default weights has; 0 if they have no head, None if there are none.
        refusal: Why it is not supported; empty if it is.
    """

    name: str
    family: str
    positions: str
    pooling: str
    classes: int | None
    refusal: str


def architecture_names() -> tuple[str, ...]:
    """The names of all architectures of the supported families, including a few that are not supported."""
    return tuple(name for adapter in ADAPTERS for module in adapter.modules for name in timm.list_models(module=module))


def architectures() -> list[Architecture]:
    """All architectures of the supported families, family by family; this builds each without its weights."""
    return [
        _architecture(name, adapter)
        for adapter in ADAPTERS
        for module in adapter.modules
        for name in timm.list_models(module=module)
    ]


def _architecture(name: str, adapter: Adapter) -> Architecture:
    weights = timm.models.get_pretrained_cfg(name)
    classes = weights.num_classes if weights is not None and weights.has_weights else None
    return described(name, _structure(name), adapter.model.__name__, classes)


def described(name: str, vit: TimmViT, family: str, classes: int | None) -> Architecture:
    """What `list models` says of a model, given its structure and what the structure does not tell."""
    try:
        check_supported(vit)
        refusal = ""
    except UnsupportedModelError as error:
        refusal = error.reason
    kinds = {"absolute": vit.pos_embed is not None, "rotary": has_rotary(vit)}
    positions = " + ".join(kind for kind, given in kinds.items() if given) or "none"
    return Architecture(name, family, positions, POOLINGS.get(vit.global_pool, vit.global_pool), classes, refusal)


def _structure(name: str) -> TimmViT:
    """The model without memory for its weights, of one block where it can be built so."""
    with torch.device("meta"):
        try:
            return timm.create_model(name, depth=1)
        except (AssertionError, TypeError):  # an architecture that lists something for each of its blocks
            return timm.create_model(name)
