"""Small timm models whose every weight counts, saved the way timm saves them, and files of their weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn

SMALL: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 32}


def moved(model: nn.Module, seed: int = 0) -> Any:
    """The model in evaluation mode, with weights of which none can be left out or exchanged unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model.eval()


def small_vit(name: str = "vit_tiny_patch16_224", classes: int = 5, seed: int = 0, **options: Any) -> Any:
    """A timm model of a few blocks."""
    torch.manual_seed(0)
    return moved(timm.create_model(name, **{**SMALL, "num_classes": classes, **options}), seed)


def folder_for(vit: nn.Module, folder: Path) -> str:
    """The name under which `load_model` builds the same architecture; the weights in the folder are others."""
    other = timm.create_model(vit.pretrained_cfg["architecture"], **vit._model_args)  # type: ignore[index,arg-type]
    save_for_hf(other, str(folder), safe_serialization=True)
    return f"local-dir:{folder}"


def answers(vit: Any, size: int = 32) -> Tensor:
    """Logits, or features without a head."""
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        given: Tensor = vit(images)
    return given


def as_openai_clip(state: dict[str, Tensor], prefix: str = "visual.") -> dict[str, Tensor]:
    """timm's weights of a CLIP image tower under the names of OpenAI's and OpenCLIP's releases."""
    named = {}
    for key, value in state.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.*)", key)
        name = block[2] if block else key
        for ours, theirs in (
            ("patch_embed.proj.", "conv1."),
            ("norm_pre.", "ln_pre."),
            ("norm1.", "ln_1."),
            ("norm2.", "ln_2."),
            ("attn.qkv.", "attn.in_proj_"),
            ("attn.proj.", "attn.out_proj."),
            ("mlp.fc1.", "mlp.c_fc."),
            ("mlp.fc2.", "mlp.c_proj."),
        ):
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
                break
        else:
            name = name.replace("norm.", "ln_post.") if not block else name
        if key == "cls_token":
            name, value = "class_embedding", value[0, 0]
        elif key == "pos_embed":
            name, value = "positional_embedding", value[0]
        elif key == "head.weight":
            name, value = "proj", value.T.contiguous()
        elif key == "head.bias":
            continue
        named[f"{prefix}transformer.resblocks.{block[1]}.{name}" if block else f"{prefix}{name}"] = value
    return named
