"""The timm model that is the same as a model of Hugging Face transformers, from its configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from tokbench.errors import UserError

VISION_TOWERS = ("siglip", "siglip2", "clip")  # types with a text model, whose image model is `vision_config`

_SIZES = {
    "image_size": "img_size",
    "patch_size": "patch_size",
    "num_channels": "in_chans",
    "hidden_size": "embed_dim",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
}
_INTERPOLATIONS = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}  # by the number that Pillow gives them


def create(config: Mapping[str, Any]) -> nn.Module:
    """A timm model with random weights for a configuration.

    Args:
        config: The content of a `config.json` with a `model_type`.

    Raises:
        UserError: timm has no such model.
    """
    kind = str(config.get("model_type"))
    settings = config["vision_config"] if kind in VISION_TOWERS and "vision_config" in config else config
    name = _architecture(kind, settings, "ForImageClassification" in str(config.get("architectures")))
    if name is None:
        raise UserError(f"timm has no model for the model_type '{kind[:50]}' of its config.json")
    sizes = {ours: settings[theirs] for theirs, ours in _SIZES.items() if theirs in settings}
    if "hidden_size" not in settings:
        raise UserError("its config.json does not say the sizes of the model")
    if "image_size" not in settings and "num_patches" in settings:  # of a square, though images of any shape go in
        sizes["img_size"] = math.isqrt(settings["num_patches"]) * settings["patch_size"]
    hidden = settings.get("intermediate_size") or settings["hidden_size"] * settings.get("mlp_ratio", 4)
    if settings.get("use_swiglu_ffn"):  # as transformers rounds it, two halves in one layer
        hidden = 2 * (((int(hidden * 2 / 3) + 7) // 8) * 8)
    if kind == "dinov3_vit" and "rope_theta" in settings:
        sizes["rope_temperature"] = settings["rope_theta"]
    if "register" in kind or kind == "dinov3_vit":
        sizes["num_reg_tokens" if kind == "dinov3_vit" else "reg_tokens"] = settings.get("num_register_tokens", 0)
    # A part more, since timm rounds the product of the ratio and the width down.
    vit: nn.Module = timm.create_model(name, mlp_ratio=(hidden + 0.25) / settings["hidden_size"], **sizes)
    return vit


def preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    """timm's preprocessing for that of transformers: mean, deviation, interpolation and crop.

    Args:
        config: The content of a `preprocessor_config.json`; what it does not say is left out.
    """
    found: dict[str, Any] = {}
    for theirs, ours in (("image_mean", "mean"), ("image_std", "std")):
        values = config.get(theirs)
        if isinstance(values, list) and all(isinstance(value, float | int) for value in values):
            found[ours] = tuple(values)
    if config.get("resample") in _INTERPOLATIONS:
        found["interpolation"] = _INTERPOLATIONS[config["resample"]]
    return found | _cropped(config)


def _cropped(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is resized and cropped: to a rectangle without regard to the proportions, or by the shorter side."""
    of_clip = str(config.get("image_processor_type", config.get("feature_extractor_type"))).startswith("CLIP")
    size, crop = config.get("size"), config.get("crop_size")
    if isinstance(size, int):  # as early versions wrote it; only CLIP's meant the shorter side
        size = {"shortest_edge": size} if of_clip else {"height": size}
    cropped = crop.get("height") if isinstance(crop, Mapping) else crop
    if not isinstance(size, Mapping) or not config.get("do_resize", True):
        return {}
    if not isinstance(cropped, int) or not config.get("do_center_crop", True):
        return {"crop_pct": 1.0, "crop_mode": "squash"} if "height" in size else {}
    if size.get("height"):
        return {"crop_pct": cropped / size["height"], "crop_mode": "squash"}
    return {"crop_pct": cropped / size["shortest_edge"], "crop_mode": "center"} if size.get("shortest_edge") else {}


def _architecture(kind: str, settings: Mapping[str, Any], classifies: bool) -> str | None:
    """The name of a timm model that differs in sizes only."""
    dinov2 = "giant" if settings.get("use_swiglu_ffn") else "small"
    siglip = "vit_base_patch16_siglip_gap_224" if classifies else "vit_base_patch16_siglip_224"
    clip = "vit_base_patch32_clip_224"
    return {
        "vit": "vit_base_patch16_224",
        "deit": "deit_base_distilled_patch16_224",
        "dinov2": f"vit_{dinov2}_patch14_dinov2",
        "dinov2_with_registers": f"vit_{dinov2}_patch14_reg4_dinov2",
        "dinov3_vit": f"vit_small_{'plus_' if settings.get('use_gated_mlp') else ''}patch16_dinov3_qkvb",
        "siglip": siglip,
        "siglip_vision_model": siglip,
        "siglip2": siglip,
        "siglip2_vision_model": siglip,
        "clip": clip,
        "clip_vision_model": clip,
    }.get(kind)
