"""Pretrained models by name: timm models, with weights from the hub or from a file, and the embedded models."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench.embedded import model as digits
from tokbench.embedded.images import DATA_CONFIG
from tokbench.errors import UserError, did_you_mean
from tokbench.names import EMBEDDED_MODELS, RANDOM
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.supported import check_supported
from tokbench.vit.weights import METHOD, few, misfits, one_line, read_weights, split_method


class MethodWeightsError(UserError):
    """A file has a method's weights, and they do not fit the method."""


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A model with weights, ready to be measured.

    Attributes:
        vit: In evaluation mode, float32, on the CPU.
        identity: A hash of its weights, and of the method's where the file has them.
        downsampler: The method's weights by name, where the file was saved from a `DownsampledViT`; else empty.
        class_names: The names of its outputs, in their order, where the weights come with them; else empty.
        remarks: What was done to the weights on loading, for each row of the model.
    """

    vit: VisionTransformer
    identity: str
    downsampler: dict[str, Tensor] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """How many outputs the head has; 0 where there is no head, and the model returns features."""
        return int(self.vit.num_classes)


def load_model(name: str, weights: str | Path | None = None) -> Pretrained:
    """Load a model with pretrained weights.

    Args:
        name: One of `EMBEDDED_MODELS`, or a name that timm knows.
        weights: A `.safetensors` or `.pth` file in the key names of timm or of `DownsampledViT`; "random" draws them
            from a fixed seed; None takes timm's hub, or for an embedded model the weights that come with tokbench.

    Raises:
        UserError: The model is unknown or unsupported, or its weights cannot be loaded or do not fit.
    """
    check_name(name)
    if name in EMBEDDED_MODELS and weights == RANDOM:
        raise UserError(f"{name} comes with trained weights: leave --weights random out")
    vit = _build(name)
    check_supported(vit)
    method: dict[str, Tensor] = {}
    if weights is None:
        vit = digits.load(name) if name in EMBEDDED_MODELS else _from_hub(name)
    elif weights != RANDOM:
        state, method = split_method(read_weights(Path(weights)))
        _fill(vit, state, Path(weights))
    if name in EMBEDDED_MODELS:
        vit.pretrained_cfg = DATA_CONFIG
    vit = vit.float().eval()
    return Pretrained(vit, _digest({**vit.state_dict(), **_prefixed(method)}), method)


def load_method_weights(model: DownsampledViT, weights: dict[str, Tensor]) -> None:
    """Give the method in a model the weights that were saved with it.

    Nothing happens where either side has none: a file may be measured with methods that have no weights.

    Args:
        model: A model with a method in it, put together as the saved one was.
        weights: `Pretrained.downsampler`.

    Raises:
        MethodWeightsError: The weights are another method's, or were saved with other parameters or another schedule.
    """
    method = model.downsampler
    if method is None or not weights or not method.state_dict():
        return
    problems = misfits(method.state_dict(), weights)
    if problems:
        raise MethodWeightsError(
            f"the method weights in the file do not fit method '{method.name}' with {model.schedule}: {problems}; "
            "use the method, parameters and schedule that they were trained with"
        )
    method.load_state_dict(weights)


def check_name(name: str) -> None:
    """Check that tokbench or timm knows a model.

    Raises:
        UserError: Neither does; the message suggests the nearest name.
    """
    if name not in EMBEDDED_MODELS and not timm.is_model(name):
        raise UserError(f"unknown model '{name}': {did_you_mean(name, list(model_names()))}")


def model_names() -> tuple[str, ...]:
    """The embedded models and timm's ViTs; `load_model` refuses those that `DownsampledViT` does not support."""
    return (
        *EMBEDDED_MODELS,
        *timm.list_models(module="deit"),
        *timm.list_models("vit_*", module="vision_transformer"),
    )


def full_name(model: str) -> str:
    """A model's name with the tag of its weights; where none is written, timm's default one."""
    default = None if "." in model else timm.models.get_pretrained_cfg(model)
    return f"{model}.{default.tag}" if default is not None and default.tag else model


def _build(name: str) -> VisionTransformer:
    """The model with random weights, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return digits.build(name) if name in EMBEDDED_MODELS else timm.create_model(name, pretrained=False)


def _from_hub(name: str) -> VisionTransformer:
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # the user need not see each retry
    try:
        return timm.create_model(name, pretrained=True)
    # The hub's libraries may raise any error of their network stack.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"no pretrained weights for {name} from timm's hub ({reason}): "
            "connect to the internet, or name a local .safetensors or .pth with --weights FILE"
        ) from error


def _prefixed(method: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{METHOD}{key}": value for key, value in method.items()}


def _fill(vit: VisionTransformer, state: dict[str, Tensor], path: Path) -> None:
    problems = misfits(vit.state_dict(), state)
    if problems:
        raise UserError(
            f"{one_line(str(path))} does not fit the model: {problems}; name the model that these weights belong to"
        )
    infinite = [key for key, value in state.items() if not value.isfinite().all()]
    if infinite:
        raise UserError(
            f"{one_line(str(path))} has NaN or infinite weights in {few(infinite)}: "
            "give a checkpoint from before the training diverged"
        )
    vit.load_state_dict(state)


def _digest(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].contiguous().numpy().tobytes())
    return digest.hexdigest()
