"""Pretrained models by name: timm models, with weights from the hub or from a file, and the embedded model."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench.embedded import model as digits
from tokbench.embedded.images import DATA_CONFIG
from tokbench.errors import UserError, did_you_mean
from tokbench.names import EMBEDDED_MODEL, RANDOM
from tokbench.vit.backbone import check_supported


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A model with weights, ready to be measured.

    Attributes:
        vit: The model, in evaluation mode, float32, on the CPU.
        identity: A hash of its weights.
    """

    vit: VisionTransformer
    identity: str


def load_model(name: str, weights: Literal["random"] | Path | None = None) -> Pretrained:
    """Load a model with pretrained weights.

    Args:
        name: `digits_deit`, or the name of a timm model.
        weights: A `.safetensors` or `.pth` file with timm's key names; `random` draws weights from a fixed seed; None
            downloads timm's pretrained weights.

    Raises:
        UserError: The model is unknown or not supported, or its weights cannot be loaded or do not fit.
    """
    if name == EMBEDDED_MODEL:
        if weights is not None:
            raise UserError(f"{EMBEDDED_MODEL} has its own weights: drop --weights")
        vit = digits.load()
        vit.pretrained_cfg = DATA_CONFIG
    else:
        vit = _load_timm(name, weights)
    check_supported(vit)
    vit = vit.float().eval()
    return Pretrained(vit, _digest(vit.state_dict()))


def check_name(name: str) -> None:
    """Raise an error if neither tokbench nor timm has a model of this name.

    Raises:
        UserError: The model is unknown; the message suggests a similar name.
    """
    if name != EMBEDDED_MODEL and not timm.is_model(name):
        raise UserError(f"unknown model '{name}': {did_you_mean(name, list(model_names()))}")


def model_names() -> tuple[str, ...]:
    """The embedded model and timm's plain ViTs; `load_model` still rejects those with an unsupported structure."""
    return (
        EMBEDDED_MODEL,
        *timm.list_models(module="deit"),
        *timm.list_models("vit_*", module="vision_transformer"),
    )


def _load_timm(name: str, weights: Literal["random"] | Path | None) -> VisionTransformer:
    check_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = timm.create_model(name, pretrained=False)
    check_supported(vit)
    if weights == RANDOM:
        return vit
    if isinstance(weights, Path):
        _fill(vit, read_weights(weights), weights)
        return vit
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # hides its messages about retries
    try:
        return timm.create_model(name, pretrained=True)
    # The hub's libraries raise many types of network errors; without weights there is nothing to measure.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot download the pretrained weights of {name} ({reason}): "
            "check the network connection, or give a local .safetensors or .pth file with --weights FILE"
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
    # Given an arbitrary file, the unpickler may raise any exception.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} cannot be read as weights ({reason}): give a .safetensors file, or a .pth file of tensors"
        ) from None
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} does not contain a state dict: give a file of tensors with timm's key names")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _fill(vit: VisionTransformer, state: dict[str, Tensor], path: Path) -> None:
    expected = vit.state_dict()
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
    if problems:
        raise UserError(f"{path} does not fit the model: {'; '.join(problems)}; give the model of these weights")
    vit.load_state_dict(state)


def _few(keys: list[str], shown: int = 5) -> str:
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return f"{', '.join(keys[:shown])}{more}"


def _digest(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].contiguous().numpy().tobytes())
    return digest.hexdigest()
