"""The optimiser and the learning rate of a recipe, and which weights it trains in which epoch."""

from __future__ import annotations

import fnmatch
from typing import Any

from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from tokbench.errors import UserError
from tokbench.finetune.recipes import Recipe
from tokbench.vit.backbone import DownsampledViT


def create_optimiser(model: DownsampledViT, recipe: Recipe) -> Optimizer:
    """The optimiser of all weights that a recipe ever trains; the others need no gradients from now on.

    Raises:
        UserError: There are none, or timm does not know the optimiser.
    """
    unknown = [pattern for pattern in recipe.frozen if not fnmatch.filter(_names(model.vit), pattern)]
    if unknown:
        raise UserError(f"recipe '{recipe.name}' freezes '{unknown[0]}', and the model has no weights of this name")
    for name, weight in model.vit.named_parameters():
        weight.requires_grad_(not any(fnmatch.fnmatch(name, pattern) for pattern in recipe.frozen))
    groups = []
    if recipe.frozen_epochs != "all":
        groups += _scaled(_groups(model.vit, recipe, recipe.layer_decay), recipe.backbone_scale)
    if model.downsampler is not None:
        groups += _scaled(_groups(model.downsampler, recipe, None), recipe.method_scale)
    if not any(group["params"] for group in groups):
        raise UserError(f"recipe '{recipe.name}' leaves nothing to train: the method has no weights of its own")
    # the fused step is the fastest on a GPU, and on a CPU it is the only one that is not slow
    fused = {"fused": True} if recipe.optimizer == "adamw" else {}
    try:
        return create_optimizer_v2(groups, opt=recipe.optimizer, lr=recipe.peak_lr, **fused)  # type: ignore[no-any-return]
    except ValueError as error:
        raise UserError(
            f"recipe '{recipe.name}': {str(error).splitlines()[0]}: name one of timm's optimizers"
        ) from None


def create_schedule(optimiser: Optimizer, recipe: Recipe, steps_per_epoch: int) -> Scheduler:
    """The learning rate as a function of the step: its `step_update` sets that of a step, counted from 0."""
    schedule, _ = create_scheduler_v2(
        optimiser,
        "cosine",
        num_epochs=recipe.epochs,
        min_lr=recipe.min_lr,
        warmup_lr=recipe.warm_up_lr,
        warmup_epochs=recipe.warm_up_epochs,
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )
    return schedule


def learning_rate(optimiser: Optimizer) -> float:
    """The present learning rate, without the factors of single weights."""
    group = max(optimiser.param_groups, key=lambda one: one["lr_scale"])
    return float(group["lr"] / group["lr_scale"]) if group["lr_scale"] else 0.0


def train_weights_of(model: DownsampledViT, recipe: Recipe, epoch: int) -> None:
    """Let the model's own weights need gradients, or not while only the method's are trained."""
    method = model.downsampler
    if method is None or not any(weight.requires_grad for weight in method.parameters()):
        return
    alone = recipe.frozen_epochs == "all" or epoch < recipe.frozen_epochs
    for name, weight in model.vit.named_parameters():
        weight.requires_grad_(not alone and not any(fnmatch.fnmatch(name, pattern) for pattern in recipe.frozen))


def _groups(module: nn.Module, recipe: Recipe, layer_decay: float | None) -> list[dict[str, Any]]:
    named: Any = getattr(module, "no_weight_decay", tuple)  # a method of timm's models
    exempt = named()
    if layer_decay is None:
        return list(param_groups_weight_decay(module, recipe.weight_decay, no_weight_decay_list=exempt))
    return list(
        param_groups_layer_decay(module, recipe.weight_decay, no_weight_decay_list=exempt, layer_decay=layer_decay)
    )


def _scaled(groups: list[dict[str, Any]], scale: float) -> list[dict[str, Any]]:
    return [{**group, "lr_scale": scale * group.get("lr_scale", 1.0)} for group in groups if group["params"]]


def _names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]
