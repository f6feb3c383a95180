"""Key names of Hugging Face transformers: the vision models ViT, DeiT, DINOv2, DINOv3, SigLIP and CLIP in timm's names.

Files have the names of the version that has written them, so several stand for the same tensor. What transformers keeps
in three tensors, for queries, keys and values, is one in timm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from timm.models.eva import Eva
from torch import Tensor, nn

from tokbench.errors import UserError

_PATCHES = re.compile(r"(?P<prefix>.*?)embeddings\.patch_embeddings?(?:\.projection)?\.weight")

_RENAMED = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"embeddings\.(?:cls_token|class_embedding)", "cls_token"),
        (r"embeddings\.distillation_token", "dist_token"),
        (r"embeddings\.(register_tokens|mask_token)", r"\1"),
        (r"embeddings\.(?:position_embeddings|position_embedding\.weight)", "pos_embed"),
        (r"embeddings\.patch_embeddings?(?:\.projection)?\.(weight|bias)", r"patch_embed.proj.\1"),
        (r"pre_layrnorm\.(.*)", r"norm_pre.\1"),
        (r"(?:post_)?(?:layer)?norm\.(.*)", r"norm.\1"),
        (r"head\.probe", "attn_pool.latent"),
        (r"head\.attention\.in_proj_(weight|bias)", r"attn_pool.qkv.\1"),
        (r"head\.attention\.out_proj\.(.*)", r"attn_pool.proj.\1"),
        (r"head\.layernorm\.(.*)", r"attn_pool.norm.\1"),
        (r"head\.mlp\.(.*)", r"attn_pool.mlp.\1"),
    )
)
_BLOCK = re.compile(r"(?:model\.|encoder\.)?layers?\.(\d+)\.(.*)")
_IN_BLOCK = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"(?:layernorm_before|layer_norm1|norm1)\.(.*)", r"norm1.\1"),
        (r"(?:layernorm_after|layer_norm2|norm2)\.(.*)", r"norm2.\1"),
        (r"(?:attention\.attention|attention|self_attn)\.(q|k|v)(?:uery|ey|alue|_proj)\.(.*)", r"attn.\1.\2"),
        (r"(?:attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.(.*)", r"attn.proj.\1"),
        (r"(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.(.*)", r"mlp.fc1.\1"),
        (r"(?:output\.dense|mlp\.fc2|mlp\.weights_out|mlp\.down_proj)\.(.*)", r"mlp.fc2.\1"),
        (r"mlp\.(gate|up)_proj\.(.*)", r"mlp.\1.\2"),
        (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
    )
)
_HEADS = {
    "classifier": "head",
    "cls_classifier": "head",
    "distillation_classifier": "head_dist",
    "visual_projection": "head",
}


def prefix_of(state: Mapping[str, Tensor]) -> str | None:
    """What stands before the names of transformers, as in `vit.` or `model.vision_model.`; None for other names."""
    prefixes = [match["prefix"] for key in state if (match := _PATCHES.fullmatch(key))]
    return prefixes[0] if len(prefixes) == 1 else None


def in_timm_names(state: Mapping[str, Tensor], vit: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The weights under timm's names, and which others are beside them.

    Names that are not known stay as they are.

    Args:
        state: Weights for which `prefix_of` is not None.
        vit: The model that they are for.

    Raises:
        UserError: The head reads something else than the head of the model.
    """
    prefix = prefix_of(state) or ""
    named: dict[str, Tensor] = {}
    beside = []
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        if kind == "position_ids" or key.startswith(f"{prefix}pooler."):
            beside += [] if kind == "position_ids" else [key]
        elif layer.removeprefix("model.") in _HEADS:
            named[f"{_HEADS[layer.removeprefix('model.')]}.{kind}"] = value
        elif key.startswith(prefix):
            named[_renamed(key.removeprefix(prefix))] = value
        else:
            beside.append(key)
    _check_head(state, named, vit)
    named = _shaped(named)
    named = _eva_names(_joined(named), vit) if isinstance(vit, Eva) else _vit_names(_joined(named), vit)
    return named, beside


def _renamed(key: str) -> str:
    block = _BLOCK.fullmatch(key)
    rest, table = (block[2], _IN_BLOCK) if block else (key, _RENAMED)
    for pattern, name in table:
        if match := pattern.fullmatch(rest):
            rest = match.expand(name)
            break
    return f"blocks.{block[1]}.{rest}" if block else rest


def _check_head(state: Mapping[str, Tensor], named: Mapping[str, Tensor], vit: nn.Module) -> None:
    """Refuse a head on something that timm's models do not give their heads."""
    head = named.get("head.weight")
    way_out = "leave its classifier out of the file to measure the features"
    if head is None or "visual_projection.weight" in state:
        return
    if "norm_pre.weight" in named:
        raise UserError(f"its classifier reads the mean of CLIP's patch tokens before the last norm: {way_out}")
    width = named["cls_token"].shape[-1] if "cls_token" in named else 0
    if width and head.ndim == 2 and head.shape[1] == 2 * width:
        raise UserError(f"its classifier reads the class token beside the mean of the patch tokens: {way_out}")
    if not width and getattr(vit, "attn_pool", None) is not None:
        raise UserError(
            "its classifier reads the mean of the tokens, not the pooled one: name timm's model with gap in its name, "
            "such as vit_base_patch16_siglip_gap_224"
        )


def _shaped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The embeddings in timm's shapes."""
    shaped = dict(state)
    for key in ("cls_token", "mask_token", "pos_embed"):
        if key in shaped and shaped[key].ndim in (1, 2):
            shaped[key] = shaped[key].reshape(1, -1, shaped[key].shape[-1])
    patches = shaped.get("patch_embed.proj.weight")
    if patches is not None and patches.ndim == 2:  # of pixels in the order height, width, channels
        side = math.isqrt(patches.shape[1] // 3)
        if 3 * side * side == patches.shape[1]:
            pixels = patches.reshape(-1, side, side, 3)
            shaped["patch_embed.proj.weight"] = pixels.permute(0, 3, 1, 2).contiguous()
    head = shaped.get("head.weight")
    if head is not None and "head.bias" not in shaped:
        shaped["head.bias"] = head.new_zeros(head.shape[:1])
    return shaped


def _joined(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values in one tensor; a bias that some of them have is zero for the others.

    What a layer lacks stays apart, and is then missing, if it is a weight or a bias that other layers have.
    """
    joined = dict(state)
    layers = [key.removesuffix("q.weight") for key in state if key.endswith("attn.q.weight")]
    biased = [one for one in "qkv" if any(f"{layer}{one}.bias" in state for layer in layers)]
    for layer in layers:
        for kind, there in (("weight", list("qkv")), ("bias", biased)):
            if there and all(f"{layer}{one}.{kind}" in state for one in there):
                parts = [joined.pop(f"{layer}{one}.{kind}", None) for one in "qkv"]
                first = next(part for part in parts if part is not None)
                joined[f"{layer}qkv.{kind}"] = torch.cat(
                    [torch.zeros_like(first) if part is None else part for part in parts]
                )
    return joined


def _vit_names(state: dict[str, Tensor], vit: nn.Module) -> dict[str, Tensor]:
    """What is particular to timm's VisionTransformer."""
    named = dict(state)
    biased = any(key.endswith("attn.qkv.bias") for key in state)
    for key in list(named):
        if key.endswith("attn.qkv.weight") and not biased:
            named[key.replace("weight", "bias")] = named[key].new_zeros(named[key].shape[0])
        elif key.startswith("attn_pool.qkv."):
            value, kind = named.pop(key), key.rpartition(".")[2]
            third = value.shape[0] // 3
            named[f"attn_pool.q.{kind}"], named[f"attn_pool.kv.{kind}"] = value[:third], value[third:]
        elif ".mlp.gate." in key:
            gate, up = named.pop(key), named.pop(key.replace("gate", "up"), None)
            named[key.replace("gate", "fc1")] = gate if up is None else torch.cat([gate, up])
    if getattr(vit, "attn_pool", None) is None:
        named = {key: value for key, value in named.items() if not key.startswith("attn_pool.")}
    if "register_tokens" in named:  # as in the files of DINOv2, which timm knows by their mask
        named.setdefault("mask_token", torch.zeros(1, 1, named["register_tokens"].shape[-1]))
    if "dist_token" in named and "head.weight" in named and "head_dist.weight" not in named:
        # timm's model answers with the mean of two heads. Here one reads the class token, and none the other token.
        for kind in ("weight", "bias"):
            named[f"head_dist.{kind}"] = torch.zeros_like(named[f"head.{kind}"])
            named[f"head.{kind}"] = 2 * named[f"head.{kind}"]
    return named


def _eva_names(state: dict[str, Tensor], vit: nn.Module) -> dict[str, Tensor]:
    """What is particular to timm's Eva, in which DINOv3 is built."""
    own = {name for name, _ in vit.named_parameters()}
    gated = any(".mlp.gate." in key for key in state)
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == "mask_token":
            continue
        name = re.sub(r"ls([12])\.gamma", r"gamma_\1", key.replace("register_tokens", "reg_token"))
        name = name.replace("mlp.gate.", "mlp.fc1_g.").replace("mlp.up.", "mlp.fc1_x." if gated else "mlp.fc1.")
        if name.endswith("attn.qkv.bias"):
            query, key_bias, of_values = value.chunk(3)
            layer = name.removesuffix("qkv.bias")
            if f"{layer}q_bias" in own and not key_bias.any():
                named[f"{layer}q_bias"], named[f"{layer}v_bias"] = query, of_values
                continue
            if f"{layer}qkv.bias" not in own and not value.any():
                continue
        named[name] = value
    return named
