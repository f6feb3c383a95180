"""Lowering the keep during training, from all tokens to the schedule's, as EViT does when it trains from scratch."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

from tokbench.downsampler import Downsampler, Geometry
from tokbench.errors import UserError
from tokbench.schedule import Budget, EveryBlock, Schedule, Stages, planned_counts
from tokbench.vit.backbone import DownsampledViT

_DIGITS = 4  # of a keep, so that it can be written down


def keep_at(progress: float, first: int, last: int, keep: float) -> float:
    """The keep at a point of training.

    Args:
        progress: In epochs.
        first: The epoch at which it starts to fall from 1.
        last: The epoch from which it is `keep`.
        keep: The schedule's.
    """
    share = min(max((progress - first) / (last - first), 0.0), 1.0)
    return round(keep + (1 - keep) * 0.5 * (1 + math.cos(math.pi * share)), _DIGITS) if share < 1 else keep


def check_keep_warm_up(model: DownsampledViT) -> None:
    """Check that a model can be trained with other keeps than its own.

    Raises:
        UserError: The schedule has no keep, the method has weights that fit its counts only, or it is trained with all
            tokens in place.
    """
    if model.downsampler is None or model.schedule is None:
        return
    if model.schedule.keep is None or not isinstance(model.schedule, Stages | EveryBlock | Budget):
        raise UserError(f"schedule '{model.schedule}' has no keep to warm up: set the recipe's keep_warm_up to none")
    if type(model.downsampler).relaxed is not Downsampler.relaxed:
        raise UserError(
            f"method '{model.downsampler.name}' is trained with all tokens in place, so that no keep can be warmed up: "
            "set the recipe's keep_warm_up to none"
        )
    other = copy.deepcopy(model.downsampler)
    grid = model.vit.patch_embed.grid_size
    counts = tuple(count + 1 for count in model.counts)
    heads, blocks = model.vit.blocks[0].attn.num_heads, len(model.vit.blocks)
    other.setup(Geometry(model.vit.embed_dim, heads, model.depths, grid, counts, blocks=blocks))
    shapes, own = (
        {name: value.shape for name, value in one.state_dict().items()} for one in (other, model.downsampler)
    )
    if shapes != own:
        raise UserError(
            f"method '{model.downsampler.name}' has weights for its final counts, so that its keep cannot be warmed "
            "up: set the recipe's keep_warm_up to none"
        )


def set_keep(model: DownsampledViT, schedule: Schedule, keep: float) -> None:
    """Let a model keep another share of its tokens from now on.

    Args:
        model: With a method, checked by `check_keep_warm_up`.
        schedule: Its schedule with the final keep.
        keep: The share.
    """
    assert model.downsampler is not None
    assert isinstance(schedule, Stages | EveryBlock | Budget)
    if model.schedule is None or model.schedule.keep == keep:
        return
    model.schedule = replace(schedule, keep=keep)
    grid = model.vit.patch_embed.grid_size
    model.counts = planned_counts(model.schedule, model.downsampler, len(model.vit.blocks), grid)
