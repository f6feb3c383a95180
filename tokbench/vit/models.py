"""Pretrained models by name: with weights that come with them, from the hub or from a file."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from tokbench.embedded import model as digits
from tokbench.errors import UserError
from tokbench.model_names import place_of
from tokbench.names import EMBEDDED_MODELS, RANDOM
from tokbench.vit.adapters import TimmViT
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.checkpoints import names_of_config, read_checkpoint
from tokbench.vit.fitting import fit, resampled
from tokbench.vit.model_sources import (
    build,
    check_name,
    folder_of,
    preprocessed_as,
    preprocessing_of,
    settings_of,
    with_size,
)
from tokbench.vit.supported import check_supported
from tokbench.vit.weights import METHOD, misfits, split_method


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

    vit: TimmViT
    identity: str
    downsampler: dict[str, Tensor] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """How many outputs the head has; 0 where there is no head, and the model returns features."""
        return int(self.vit.num_classes)


def load_model(
    name: str, weights: str | Path | None = None, *, img_size: int | None = None, ema: bool = True
) -> Pretrained:
    """Load a model with pretrained weights.

    Args:
        name: One of `EMBEDDED_MODELS`, a name that timm knows, `hf-hub:user/name` or `local-dir:folder`.
        weights: A file or a folder in the key names of timm, of `DownsampledViT`, of Hugging Face transformers, or of
            the releases of DINOv2, MAE, CLIP and OpenCLIP; "random" draws them from a fixed seed; None takes those
            that come with the model.
        img_size: Height and width of the images in pixels; None takes the model's own.
        ema: Whether to take the moving average of the weights where a file has both.

    Returns:
        The model. Its number of classes is that of the head in the file.

    Raises:
        UserError: The model is unknown or unsupported, or its weights cannot be loaded or do not fit.
    """
    check_name(name)
    if name in EMBEDDED_MODELS and weights == RANDOM:
        raise UserError(f"{name} comes with trained weights: leave --weights random out")
    vit: Any = build(name, img_size)
    check_supported(vit)
    built = preprocessing_of(vit)
    method: dict[str, Tensor] = {}
    remarks: tuple[str, ...] = ()
    names = names_of_config(vit.pretrained_cfg)
    file = folder_of(name) if weights is None else Path(weights)
    if file is None:
        vit, remarks = _with_own_weights(vit, name, img_size)
    elif weights != RANDOM:
        checkpoint = read_checkpoint(file, ema=ema)
        state, method = split_method(checkpoint.state)
        loaded = fit(vit, state, checkpoint, str(file))
        remarks = (*checkpoint.remarks, *loaded, *preprocessed_as(vit, checkpoint))
        names = checkpoint.class_names or names
    if names and len(names) != vit.num_classes:
        names = ()
    vit = vit.float().eval()
    identity = _digest(
        {**vit.state_dict(), **_prefixed(method)}, settings_of(vit, name, img_size, built), *_changes(remarks)
    )
    return Pretrained(vit, identity, method, names, remarks)


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


def full_name(model: str) -> str:
    """A model's name with the tag of its weights; where none is written, timm's default one."""
    if place_of(model):
        return model
    default = None if "." in model else timm.models.get_pretrained_cfg(model)
    return f"{model}.{default.tag}" if default is not None and default.tag else model


def _with_own_weights(vit: Any, name: str, img_size: int | None) -> tuple[Any, tuple[str, ...]]:
    """The model with the weights that come with its name, and what was done to them."""
    before: Any = vit if img_size is None else build(name)
    own: Any = digits.load(name) if name in EMBEDDED_MODELS else _from_hub(name)
    own.pretrained_cfg = before.pretrained_cfg
    if img_size is None:
        return own, ()
    old, own = before.patch_embed.grid_size, with_size(own, name, img_size)
    new = own.patch_embed.grid_size
    changed = own.pos_embed is not None and old != new
    return own, (resampled(old[0], *new),) if changed else ()


def _from_hub(name: str) -> Any:
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


def _changes(remarks: tuple[str, ...]) -> list[str]:
    """Those remarks that tell of a change which the weights do not show."""
    return [remark for remark in remarks if "config.json says" in remark]


def _digest(state: dict[str, Tensor], *settings: str) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].contiguous().numpy().tobytes())
    for setting in settings:
        digest.update(setting.encode())
    return digest.hexdigest()
