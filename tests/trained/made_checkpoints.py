"""Small checkpoints in the layouts of public code, with random weights."""

import argparse
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

State = dict[str, Tensor]

WIDTH, HEADS, PATCHES, CLASSES = 24, 3, 16, 5


def random_vit(seed: int = 0, **options: Any) -> VisionTransformer:
    """Four blocks on images of 32 pixels with patches of 8, with weights of which none can be left out unseen."""
    torch.manual_seed(seed)
    shape = {"img_size": 32, "patch_size": 8, "num_classes": CLASSES, "embed_dim": WIDTH, "depth": 4}
    vit = VisionTransformer(num_heads=HEADS, **{**shape, **options})
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return vit.eval()


def images(count: int = 3, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(9))


def saved(folder: Path, state: State, name: str = "made.pth", key: str = "model", **args: Any) -> Path:
    """A file as training scripts write it: weights, and the arguments unless there are none."""
    content: dict[str, Any] = {key: state, "epoch": 29, "optimizer": {"state": {}}}
    if args:
        content["args"] = argparse.Namespace(**args)
    torch.save(content, folder / name)
    return folder / name


TOP_K = {"model": "topk_tiny_patch16_224", "keep_rate": [0.5], "reduction_loc": [1, 3]}
