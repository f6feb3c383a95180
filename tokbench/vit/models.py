"""Pretrained models by name: timm's, with weights from its hub or from a file, and the embedded one."""

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
    """A model ready to be measured.

    Attributes:
        vit: In evaluation mode, float32, on the CPU.
        identity: A hash of its weights.
    """

    vit: VisionTransformer
    identity: str


def load_model(name: str, weights: Literal["random"] | Path | None = None) -> Pretrained:
    """Load a model with pretrained weights.

    Args:
        name: `digits_deit`, or a name that timm knows.
        weights: A `.safetensors` or `.pth` file in timm's key names; `random` draws them from a fixed seed; None takes
            timm's hub.

    Raises:
        UserError: The model is unknown or of another kind, or its weights cannot be had or do not fit.
    """
    if name == EMBEDDED_MODEL:
        if weights is not None:
            raise UserError(f"{EMBEDDED_MODEL} brings its own weights: leave --weights out")
        vit = digits.load()
        vit.pretrained_cfg = DATA_CONFIG
    else:
        vit = _load_timm(name, weights)
    check_supported(vit)
    vit = vit.float().eval()
    return Pretrained(vit, _digest(vit.state_dict()))


def check_name(name: str) -> None:
    """Refuse a model that neither tokbench nor timm knows.

    Raises:
        UserError: With the nearest name.
    """
    if name != EMBEDDED_MODEL and not timm.is_model(name):
        raise UserError(f"unknown model '{name}': {did_you_mean(name, list(model_names()))}")


def model_names() -> tuple[str, ...]:
    """The embedded model and timm's plain ViTs; of the latter `load_model` still refuses those built otherwise."""
    return (
        EMBEDDED_MODEL,
        *timm.list_models(module="deit"),
        *timm.list_models("vit_*", module="vision_transformer"),
    )


def full_name(model: str) -> str:
    """A model's name with the tag of its weights; where none is written, timm's default one."""
    default = None if "." in model else timm.models.get_pretrained_cfg(model)
    return f"{model}.{default.tag}" if default is not None and default.tag else model


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
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are not the user's business
    try:
        return timm.create_model(name, pretrained=True)
    # The hub's libraries raise whatever their network stack does; without weights there is nothing to measure.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"no pretrained weights for {name} from timm's hub ({reason}): "
            "go online, or name a local .safetensors or .pth with --weights FILE"
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running code from the file; half precision becomes float32.

    Args:
        path: A `.safetensors` or `.pth` file; a training checkpoint's `model` or `state_dict` is taken out of it.

    Raises:
        UserError: There is no such file, or it holds no weights.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}: --weights names a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    # An unpickler that is given something else raises whatever its bytes lead it to.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} cannot be read as weights ({reason}): give a .safetensors, or a .pth of tensors"
        ) from None
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict: give a file of named tensors in timm's key names")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _fill(vit: VisionTransformer, state: dict[str, Tensor], path: Path) -> None:
    wanted = vit.state_dict()
    reshaped = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    problems = [
        f"{kind} {_few(keys)}"
        for kind, keys in (
            ("missing", sorted(set(wanted) - set(state))),
            ("unexpected", sorted(set(state) - set(wanted))),
            (
                "of another shape",
                [f"{key} {tuple(state[key].shape)} for {tuple(wanted[key].shape)}" for key in reshaped],
            ),
        )
        if keys
    ]
    if problems:
        raise UserError(f"{path} does not fit the model: {'; '.join(problems)}; name the model these weights are of")
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
