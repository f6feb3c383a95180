"""The keep that meets a compute budget: `budget(0.7)` solved by counting MACs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tokbench.downsampler import Downsampler
from tokbench.errors import UserError
from tokbench.measure.macs import spread_of_macs
from tokbench.names import Site
from tokbench.registry import make
from tokbench.schedule import DEFAULT_DEPTHS, Budget
from tokbench.stats.pareto import EQUAL_COST
from tokbench.vit.adapters import TimmViT
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.calibration import calibrate
from tokbench.vit.supported import check_supported

STEPS = 10_000  # a keep has four decimals
CLOSE_ENOUGH = 0.0025  # of the target: coming closer is not worth another trace


class OutOfReachError(UserError):
    """No keep meets the budget."""


def solve_budget(
    vit: TimmViT,
    method: str | Downsampler,
    fraction: float,
    *,
    at: Sequence[int] = DEFAULT_DEPTHS,
    site: Site | None = None,
    images: Tensor | None = None,
    **params: Any,
) -> float:
    """Find the keep at which a model with a method takes a given fraction of the plain model's MACs.

    The method's own MACs count too. Neither the model nor the method is changed.

    Args:
        vit: A timm ViT.
        method: As for `tokbench.reduce`.
        fraction: Of the plain model's MACs, above 0 and below 1.
        at: The depths that the method acts at.
        site: Where in a block it acts; None takes the method's own site.
        images: (B, C, H, W), what to count on, and to calibrate on. Needed for an adaptive method, whose MACs depend
            on the images and on B; for others one image of noise will do.
        **params: The method's parameters, where `method` is a name.

    Returns:
        The keep, of four decimals, to be used with `stages(at=...)`; its MACs are within 1 % of the budget.

    Raises:
        OutOfReachError: No keep comes that close.
        UserError: Method, site, depths and model do not fit together, or images are missing.
        CountError: The MACs cannot be counted.
    """
    check_supported(vit)
    downsampler = make(method, params)
    depths = Budget(None, fraction, tuple(at)).at
    if downsampler.adaptive and images is None:
        raise UserError(
            f"method '{downsampler.name}' is adaptive, so its MACs depend on the images: "
            "find the keep with solve_budget(..., images=...)"
        )
    # A copy that shares the weights: counting needs evaluation mode, and the caller's model may be training.
    shared = {id(tensor): tensor for tensor in (*vit.parameters(), *vit.buffers())}
    vit = copy.deepcopy(vit, shared).eval()
    batch = _noise(vit) if images is None else images

    def macs(model: DownsampledViT) -> int:
        return spread_of_macs(model, [batch if downsampler.adaptive else batch[:1]]).total

    plain = macs(DownsampledViT(vit))

    known: dict[tuple[int, ...], float] = {}

    def cost(keep: float) -> float:
        # The model sets the method up, which would replace weights that it already has.
        model = DownsampledViT(vit, copy.deepcopy(downsampler), Budget(keep, fraction, depths), site=site)
        calibrate(model, batch)
        if downsampler.adaptive:
            return macs(model) / plain
        # Several keeps leave the same tokens, and then cost the same.
        if model.counts not in known:
            known[model.counts] = macs(model) / plain
        return known[model.counts]

    return solve_keep(cost, fraction)


def solve_keep(cost: Callable[[float], float], target: float, tolerance: float = EQUAL_COST) -> float:
    """Find the keep that costs the target, by bisection over keeps of four decimals with at most 14 costs.

    A cost is a step function, since a reduction leaves whole tokens, so the exact keep may not exist: the nearest one
    seen is returned. Up to the target the cost must rise; at keep 1 it may fall to the plain model's.

    Args:
        cost: The cost of a keep in (0, 1), in the target's unit. It may take seconds, so it is called as rarely as
            possible.
        target: The cost to reach, above 0.
        tolerance: By what fraction of the target the result may miss it.

    Raises:
        OutOfReachError: No keep comes within the tolerance; the message says what the nearest one costs.
    """
    seen: dict[float, float] = {}
    low, high = 0, STEPS
    while high - low > 1:
        middle = (low + high) // 2
        keep = middle / STEPS
        seen[keep] = cost(keep)
        if abs(seen[keep] - target) <= CLOSE_ENOUGH * target:
            return keep
        low, high = (middle, high) if seen[keep] < target else (low, middle)
    best = min(seen, key=lambda keep: abs(seen[keep] - target))
    if abs(seen[best] - target) > tolerance * target:
        raise OutOfReachError(
            f"no keep comes within {tolerance:.0%} of the budget {target:g}: "
            f"the nearest that can be reached is {seen[best]:.4g}, with keep {best:g}"
        )
    return best


def _noise(vit: TimmViT) -> Tensor:
    """One image of noise (1, C, H, W) in the size, dtype and device that the model takes."""
    projection = vit.patch_embed.proj
    size = (1, projection.in_channels, *vit.patch_embed.img_size)
    return torch.randn(size, generator=torch.Generator().manual_seed(0)).to(projection.weight)
