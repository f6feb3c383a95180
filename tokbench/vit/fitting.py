"""Weights of any known layout into a timm model, which takes the head and the pooling that they come with."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from tokbench.errors import UserError
from tokbench.vit.checkpoints import Checkpoint
from tokbench.vit.key_names import ANCHOR, converted, timm_names
from tokbench.vit.transformers_settings import apply_settings
from tokbench.vit.weights import few, misfits, one_line

SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1152: "so400m", 1280: "huge", 1408: "giant"}
"""timm's name for a width."""

SUGGESTED = 3  # names of models in a message


def fit(vit: nn.Module, state: dict[str, Tensor], checkpoint: Checkpoint, path: str) -> tuple[str, ...]:
    """Load weights into a model.

    The model gets as many classes as the head in the file, none without a head; and position embeddings of another
    resolution are resampled by timm.

    Args:
        vit: A timm model. It is changed.
        state: The weights, without those of a method.
        checkpoint: Where they are from.
        path: The file, for messages.

    Returns:
        What was done to the weights.

    Raises:
        UserError: They do not fit the model, or are not finite.
    """
    shown = one_line(path)
    try:
        named, beside = timm_names(state, vit)
        ready = named if _reshaped(vit, named, ANCHOR) or _of_other_width(vit, named) else converted(named, vit)
    except UserError as error:
        raise UserError(f"{shown} does not fit the model: {error}") from None
    remarks = [*_pooled_by_mean(vit, ready), *_with_head(vit, ready)]
    problems = misfits(vit.state_dict(), ready)
    if problems:
        raise UserError(f"{shown} does not fit the model: {problems}; {_what_would(vit, ready)}")
    try:
        settings = apply_settings(vit, checkpoint.config)
    except UserError as error:
        raise UserError(f"{shown} does not fit the model: {error}") from None
    infinite = [key for key, value in ready.items() if not value.isfinite().all()]
    if infinite:
        raise UserError(
            f"{shown} has NaN or infinite weights in {few(infinite)}: "
            "give a checkpoint from before the training diverged"
        )
    vit.load_state_dict(ready)
    if beside:
        remarks.append(f"the file has other weights beside the ViT's, which are left out: {few(beside, 3)}")
    return (*_resampled(vit, named), *remarks, *settings)


def _reshaped(vit: nn.Module, state: Mapping[str, Tensor], key: str) -> bool:
    """Whether both have a tensor, of which timm would silently change the shape."""
    own = vit.state_dict()
    return key in state and key in own and state[key].shape != own[key].shape


def _of_other_width(vit: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether position embeddings are of another width, so that resampling them would be for nothing."""
    own, given = getattr(vit, "pos_embed", None), state.get("pos_embed")
    return own is not None and given is not None and (given.ndim != 3 or given.shape[-1] != own.shape[-1])


def _pooled_by_mean(vit: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Let the model pool by the mean where the file has the norm after pooling, as MAE's fine-tuning writes it."""
    after = "fc_norm.weight" in state and "norm.weight" not in state
    if not after or getattr(vit, "global_pool", "") != "token" or not isinstance(vit.fc_norm, nn.Identity):
        return []
    vit.fc_norm, vit.norm, vit.global_pool = vit.norm, nn.Identity(), "avg"  # type: ignore[assignment]
    return ["pools by the mean of the patch tokens, as the file's fc_norm says"]


def _with_head(vit: Any, state: Mapping[str, Tensor]) -> list[str]:
    """Give the model as many classes as the file's head has."""
    head, bias, other = state.get("head.weight"), state.get("head.bias"), state.get("head_dist.weight")
    if head is None:
        if vit.num_classes and not any(key.startswith("head") for key in state):
            vit.reset_classifier(0)
            return ["the file has no head: the model returns features"]
        return []
    classes = head.shape[0]
    fits = head.ndim == 2 and head.shape[1] == vit.num_features and bias is not None and bias.shape == (classes,)
    if fits and (other is None or other.shape == head.shape) and classes != vit.num_classes:
        with torch.random.fork_rng(devices=[]):
            vit.reset_classifier(classes)
    return []


def _resampled(vit: nn.Module, named: Mapping[str, Tensor]) -> list[str]:
    """Whether position embeddings were resampled, from which grid to which."""
    given = next((named[key] for key in named if key.endswith(("pos_embed", "positional_embedding"))), None)
    own = getattr(vit, "pos_embed", None)
    if given is None or own is None:
        return []
    before, (height, width) = math.isqrt(given.shape[-2]), vit.patch_embed.grid_size  # type: ignore[misc,union-attr]
    if given.shape[-2] == own.shape[-2] or before * before == height * width:
        return []
    size = before * max(vit.patch_embed.patch_size)  # type: ignore[arg-type,union-attr]
    return [f"{resampled(before, height, width)}; the weights are for images of {size} pixels (--img-size {size})"]


def resampled(before: int, height: int, width: int) -> str:
    """The remark on position embeddings of another resolution."""
    return f"position embeddings resampled from {before}x{before} to {height}x{width}"


def _what_would(vit: Any, state: Mapping[str, Tensor]) -> str:
    """The end of a message: models whose shape these weights have, if it is another one."""
    patches = state.get(ANCHOR)
    blocks = [int(match[1]) for key in state if (match := re.match(r"blocks\.(\d{1,3})\.", key))]
    otherwise = "name the model that these weights belong to"
    if patches is None or patches.ndim != 4 or not blocks:
        return otherwise
    width, patch, depth = patches.shape[0], patches.shape[-1], 1 + max(blocks)
    own = (vit.embed_dim, max(vit.patch_embed.patch_size), len(vit.blocks))
    extra = [key for key in ("dist_token", "reg_token", "norm_pre.weight", "blocks.0.ls1.gamma") if key in state]
    if (width, patch, depth) == own and all(key in vit.state_dict() for key in extra):
        return otherwise
    names = _named(SIZES.get(width, "*"), patch, extra) if width in SIZES else []
    such = f", such as {' or '.join(names[:SUGGESTED])}" if names else ""
    return f"{otherwise}: a ViT of width {width}, depth {depth} and patches of {patch} pixels{such}"


def _named(size: str, patch: int, extra: list[str]) -> list[str]:
    """Names of timm's models of a size, by what else they have."""
    if "dist_token" in extra:
        patterns = [f"deit_{size}_distilled_patch{patch}_*"]
    elif "norm_pre.weight" in extra:
        patterns = [f"vit_{size}_patch{patch}_clip_???"]
    elif "reg_token" in extra:
        patterns = [f"vit_{size}_patch{patch}_reg*"]
    elif "blocks.0.ls1.gamma" in extra:
        patterns = [f"deit3_{size}_patch{patch}_*", f"vit_{size}_patch{patch}_dinov2"]
    else:
        patterns = [f"deit_{size}_patch{patch}_*", f"vit_{size}_patch{patch}_???"]
    return [name for pattern in patterns for name in timm.list_models(pattern)]
