"""Pretrained models by name: timm models, with weights from the hub or from a file, and the embedded model."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench.embedded import model as digits
from tokbench.embedded.images import DATA_CONFIG
from tokbench.errors import UserError, did_you_mean
from tokbench.names import EMBEDDED_MODEL, RANDOM
from tokbench.vit.backbone import DownsampledViT, check_supported

VIT, METHOD = "vit.", "downsampler."  # prefixes of the keys in the state dict of a DownsampledViT


class MethodWeightsError(UserError):
    """A file has a method's weights, and they do not fit the method."""


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A model with weights, ready to be measured.

    Attributes:
        vit: In evaluation mode, float32, on the CPU.
        identity: A hash of its weights, and of the method's where the file has them.
        downsampler: The method's weights by name, where the file was saved from a `DownsampledViT`; else empty.
    """

    vit: VisionTransformer
    identity: str
    downsampler: dict[str, Tensor] = field(default_factory=dict)


def load_model(name: str, weights: str | Path | None = None) -> Pretrained:
    """Load a model with pretrained weights.

    Args:
        name: `digits_deit`, or a name that timm knows.
        weights: A `.safetensors` or `.pth` file in the key names of timm or of `DownsampledViT`; "random" draws them
            from a fixed seed; None takes timm's hub, or for `digits_deit` the weights that come with tokbench.

    Raises:
        UserError: The model is unknown or unsupported, or its weights cannot be loaded or do not fit.
    """
    check_name(name)
    if name == EMBEDDED_MODEL and weights == RANDOM:
        raise UserError(f"{EMBEDDED_MODEL} comes with trained weights: leave --weights random out")
    vit = _build(name)
    check_supported(vit)
    method: dict[str, Tensor] = {}
    if weights is None:
        vit = digits.load() if name == EMBEDDED_MODEL else _from_hub(name)
    elif weights != RANDOM:
        state, method = split_method(read_weights(Path(weights)))
        _fill(vit, state, Path(weights))
    if name == EMBEDDED_MODEL:
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
    problems = _misfits(method.state_dict(), weights)
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
    if name != EMBEDDED_MODEL and not timm.is_model(name):
        raise UserError(f"unknown model '{name}': {did_you_mean(name, list(model_names()))}")


def model_names() -> tuple[str, ...]:
    """The embedded model and timm's ViTs; `load_model` refuses those that `DownsampledViT` does not support."""
    return (
        EMBEDDED_MODEL,
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
        return digits.build() if name == EMBEDDED_MODEL else timm.create_model(name, pretrained=False)


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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running code from the file; half precision becomes float32.

    Args:
        path: A `.safetensors` or `.pth` file; of a training checkpoint, its entry `model` or `state_dict` is used.

    Returns:
        The weights by name.

    Raises:
        UserError: The file does not exist or does not contain weights.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}: --weights must name a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    # Given other bytes than a pickle, the unpickler may raise any error.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} cannot be read as weights ({reason}): give a .safetensors file, or a .pth file of tensors"
        ) from None
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict: give a file of named tensors with timm's key names")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def split_method(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the state dict of a `DownsampledViT` into that of its ViT and that of its method.

    Any other state dict, which lacks the prefix `vit.`, is returned as it is, with an empty one for the method.
    """
    method = {key.removeprefix(METHOD): value for key, value in state.items() if key.startswith(METHOD)}
    vit = {key: value for key, value in state.items() if not key.startswith(METHOD)}
    if not vit or not all(key.startswith(VIT) for key in vit):
        return state, {}
    return {key.removeprefix(VIT): value for key, value in vit.items()}, method


def _prefixed(method: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{METHOD}{key}": value for key, value in method.items()}


def _fill(vit: VisionTransformer, state: dict[str, Tensor], path: Path) -> None:
    problems = _misfits(vit.state_dict(), state)
    if problems:
        raise UserError(f"{path} does not fit the model: {problems}; name the model that these weights belong to")
    vit.load_state_dict(state)


def _misfits(expected: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """How a state dict differs from the expected one in names and shapes; empty where it does not."""
    reshaped = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    problems = [
        f"{kind} {_few(keys)}"
        for kind, keys in (
            ("missing", sorted(set(expected) - set(state))),
            ("unexpected", sorted(set(state) - set(expected))),
            (
                "with wrong shape",
                [f"{key} {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}" for key in reshaped],
            ),
        )
        if keys
    ]
    return "; ".join(problems)


def _few(keys: list[str], shown: int = 5) -> str:
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return f"{', '.join(keys[:shown])}{more}"


def _digest(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].contiguous().numpy().tobytes())
    return digest.hexdigest()
