"""A snapshot of a model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

CUDA_TOLERANCE = 1e-3  # of logits that are computed twice; a CPU gives the same bits

_ABSENT = object()


class Untouched:
    """A snapshot of a model: its weights, its modules, their attributes and hooks, and its answer to one image."""

    def __init__(self, model: VisionTransformer | Eva) -> None:
        """Take the snapshot.

        Args:
            model: As it must stay, on its device.
        """
        self._model = model
        self._weights = {name: value.detach().cpu().clone() for name, value in _tensors(model)}
        self._modules = [_Attributes(name, module) for name, module in model.named_modules()]
        self._answer = self._logits()

    def restore(self) -> list[str]:
        """Put everything back.

        Returns:
            What had been changed: "blocks.0.mlp.fc1.weight of the plain model".
        """
        changed = [change for attributes in self._modules for change in attributes.restore()]
        for name, value in _tensors(self._model):
            before = self._weights[name]
            if value.shape != before.shape or not torch.equal(_bits(value.detach().cpu()), _bits(before)):
                value.data = before.to(value.device)
                changed.append(f"{name} of the plain model")
        return changed

    def answers_as_before(self) -> bool:
        """Whether the model still computes the same logits for one image."""
        now = self._logits()
        if now.device.type == "cpu":
            return torch.equal(now, self._answer)
        return torch.allclose(now.float(), self._answer.float(), rtol=CUDA_TOLERANCE, atol=CUDA_TOLERANCE)

    @torch.inference_mode()
    def _logits(self) -> Tensor:
        """(1, classes) for an image of a smooth pattern."""
        projection = self._model.patch_embed.proj
        shape = (1, projection.in_channels, *self._model.patch_embed.img_size)
        image = torch.linspace(-2, 2, math.prod(shape)).view(shape)
        logits: Tensor = self._model(image.to(projection.weight))
        return logits


@dataclass(eq=False)
class _Attributes:
    """What a module of a model holds, without the values of tensors."""

    name: str
    module: nn.Module
    before: dict[str, Any] = field(init=False)
    kept: dict[str, dict[Any, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.before = dict(vars(self.module))
        self.kept = {name: dict(value) for name, value in self.before.items() if isinstance(value, dict)}

    def restore(self) -> Iterator[str]:
        now = vars(self.module)
        where = f"{self.name}." if self.name else ""
        for name in [name for name in now if name not in self.before]:
            del now[name]
            yield f"{where}{name} of the plain model"
        for name, value in self.before.items():
            if now.get(name, _ABSENT) is not value:
                now[name] = value
                yield f"{where}{name} of the plain model"
            kept = self.kept.get(name)
            if kept is not None and not _same(value, kept):
                value.clear()
                value.update(kept)
                yield f"{where}{name.strip('_')} of the plain model"


def _same(one: dict[Any, Any], two: dict[Any, Any]) -> bool:
    return one.keys() == two.keys() and all(value is two[key] for key, value in one.items())


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _bits(tensor: Tensor) -> Tensor:
    """The same bits as whole numbers, so that a NaN equals itself and 0.0 is not -0.0."""
    size = {2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.element_size())
    return tensor if size is None or not tensor.is_floating_point() else tensor.contiguous().view(size)
