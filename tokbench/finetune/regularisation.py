"""Stochastic depth, Mixup and CutMix, as a recipe says."""

from __future__ import annotations

from collections.abc import Callable

from timm.data import Mixup
from timm.layers import DropPath
from torch import Tensor, nn

from tokbench.finetune.recipes import Recipe
from tokbench.vit.backbone import DownsampledViT


def set_drop_path(model: DownsampledViT, rate: float) -> None:
    """Stochastic depth: a rate that rises linearly from 0 at the first block to this one at the last."""
    last = len(model.vit.blocks) - 1
    for depth, block in enumerate(model.vit.blocks):
        own = rate * depth / last if last else rate
        block.drop_path1, block.drop_path2 = (DropPath(own) if own else nn.Identity() for _ in range(2))


def create_mixup(recipe: Recipe, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """What mixes images (B, C, H, W) and classes (B,) into images and probabilities (B, classes); None for nothing."""
    if not recipe.mixes:
        return None
    mixup: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mix,
        switch_prob=recipe.cut,
        label_smoothing=recipe.smoothing,
        num_classes=classes,
    )
    return mixup
