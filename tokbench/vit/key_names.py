"""From the names in a file to those of a timm model, by timm's own converters and by `transformers_keys`."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from typing import Any

import timm.models.eva
import timm.models.vision_transformer
from timm.models.eva import Eva
from torch import Tensor, nn

from tokbench.errors import UserError
from tokbench.vit import transformers_keys

ANCHOR = "patch_embed.proj.weight"  # every ViT of timm has it
_CLIP = "visual."  # before the names of CLIP's image tower
_HEADS = ("head.", "head_dist.", "fc.", "classifier.", "linear_head.")


def timm_names(state: dict[str, Tensor], vit: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of the ViT under the names of timm, or of a release that timm converts, and what is beside them.

    Args:
        state: As read from the file.
        vit: The model that they are for.

    Raises:
        UserError: The file is of a model that timm's does not correspond to.
    """
    if transformers_keys.prefix_of(state) is not None:
        return transformers_keys.in_timm_names(state, vit)
    if "class_embedding" in state and "conv1.weight" in state:  # CLIP's image tower alone
        return {f"{_CLIP}{key}": value for key, value in state.items()}, []
    prefixes = [key.removesuffix(ANCHOR) for key in state if key.endswith(ANCHOR)]
    if len(prefixes) != 1 or prefixes[0].startswith(_CLIP):
        return _without_pretraining(state, vit), []
    named: dict[str, Tensor] = {}
    heads: dict[str, str] = {}
    beside = []
    for key, value in state.items():
        if key.startswith(prefixes[0]):
            named[key.removeprefix(prefixes[0])] = value
        elif head := next((head for head in _HEADS if key.startswith(head)), ""):
            heads[key] = f"{head if head == 'head_dist.' else 'head.'}{key.removeprefix(head)}"
        else:
            beside.append(key)
    for key, name in heads.items():
        if name in named:
            raise UserError(f"it has two heads, one of them {key.rpartition('.')[0]}: leave the unused one out of it")
        named[name] = state[key]
    return _without_pretraining(named, vit), beside


def converted(state: dict[str, Tensor], vit: nn.Module) -> dict[str, Tensor]:
    """What timm makes of weights on loading: other names, and position embeddings for the model's grid.

    Args:
        state: From `timm_names`.
        vit: The model that they are for.

    Raises:
        UserError: timm cannot convert them.
    """
    with _silenced():
        try:
            if isinstance(vit, Eva):
                return _tensors(timm.models.eva.checkpoint_filter_fn(dict(state), vit))
            # As in timm's builders: FlexiViT was trained with other resampling.
            flexible = "flexi" in str(getattr(vit, "pretrained_cfg", {}).get("architecture", ""))
            resampling: dict[str, Any] = {"interpolation": "bilinear", "antialias": False} if flexible else {}
            return _tensors(
                timm.models.vision_transformer.checkpoint_filter_fn(
                    dict(state), vit, adapt_layer_scale=True, **resampling
                )
            )
        # Given other shapes than it expects, it may raise any error.
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"timm cannot convert its weights ({reason})") from error


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {key: value.detach() for key, value in state.items()}


def _without_pretraining(state: dict[str, Tensor], vit: nn.Module) -> dict[str, Tensor]:
    """Without what only pretraining needs: MAE's decoder, and DINOv3's biases of zero where the model has none."""
    if "mask_token" in state and any(key.startswith("decoder_blocks.") for key in state):
        state = {key: value for key, value in state.items() if not key.startswith("decoder_")}
    if "storage_tokens" in state:
        own = {name for name, _ in vit.named_parameters()}
        biases = [key for key in state if key.endswith("attn.qkv.bias")]
        if "blocks.0.attn.q_bias" not in own:
            if any(state[key].nan_to_num().any() for key in biases):
                raise UserError("its queries and values have biases: name timm's model that ends in _qkvb")
            state = {key: value for key, value in state.items() if key not in biases}
    return state


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Without what timm prints and logs on converting."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
