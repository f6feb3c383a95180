"""Compute: multiply-accumulates of one image, by several routes that must agree.

The backbone's share is counted three times: by a trace (fvcore, with the handles of `operators`), by the operators as
they are dispatched (`dispatch`), and by the closed form from the measured tokens (`ledger`). The method's share is
counted by the first two. What disagrees by more than 0.1 % is no result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tokbench.measure.dispatch import dispatched
from tokbench.measure.ledger import Ledger, closed_form, keep_ledger
from tokbench.measure.operators import CountError, Shares, handles, refuse_unknown
from tokbench.vit.backbone import DownsampledViT

TOLERANCE = 0.001  # between any two routes, as a fraction of the larger figure: zero agrees with zero alone
QUANTILES = (0.05, 0.95)
SHOWN = 5  # operators in the message of a disagreement


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one image.

    Attributes:
        total: All of them.
        method: The downsampler's own, with the context that it asked for.
        ledger: The tokens that they were counted on.
    """

    total: int
    method: int
    ledger: Ledger


@dataclass(frozen=True)
class Spread:
    """Multiply-accumulates of one image where they differ from batch to batch.

    Attributes:
        total: Mean over the images, padding included.
        method: The downsampler's own, mean over the images.
        total_lo: 5 % quantile over the batches.
        total_hi: 95 % quantile over the batches.
        tokens: Patch tokens that leave each block, mean over the images, without padding, rounded.
        batches: Each batch's, for one image of it; the ledger holds the tokens of each image.
    """

    total: int
    method: int
    total_lo: int
    total_hi: int
    tokens: tuple[int, ...]
    batches: tuple[Macs, ...]


@dataclass(frozen=True)
class Routes:
    """One image's MACs by every route.

    Attributes:
        traced: By fvcore.
        dispatched: By what PyTorch dispatched.
        closed_form: The backbone's, from the tokens.
        ledger: Those tokens.
    """

    traced: Shares
    dispatched: Shares
    closed_form: int
    ledger: Ledger

    @property
    def backbone(self) -> dict[str, int]:
        """The backbone's MACs by route."""
        return {
            "trace": self.traced.backbone.total(),
            "dispatch": self.dispatched.backbone.total(),
            "closed form": self.closed_form,
        }

    @property
    def method(self) -> dict[str, int]:
        """The method's MACs by route."""
        return {"trace": self.traced.method.total(), "dispatch": self.dispatched.method.total()}


def count_macs(model: DownsampledViT, image: Tensor) -> Macs:
    """Count one image by every route.

    Args:
        model: In evaluation mode.
        image: (1, C, H, W) in the model's dtype and on its device.

    Raises:
        CountError: An operator is on none of the lists, or two routes disagree.
    """
    routes = count_by_routes(model, image)
    _check(routes.backbone, "backbone", (routes.traced.backbone, routes.dispatched.backbone))
    _check(routes.method, "method", (routes.traced.method, routes.dispatched.method))
    method = routes.method["trace"]
    return Macs(routes.backbone["trace"] + method, method, routes.ledger)


def spread_of_macs(model: DownsampledViT, batches: Sequence[Tensor]) -> Spread:
    """Count an adaptive method on real batches, each of which is as long as its longest image.

    Both shares are counted as dispatched and the backbone's is held against the closed form. There is no trace of each
    batch; that the counter and the trace agree on the method's share is what `count_macs` shows, on one image.

    Args:
        model: In evaluation mode.
        batches: One (B, C, H, W) or more; B is that of the row, since padding grows with it.

    Raises:
        CountError: As for `count_macs`.
    """
    counted = tuple(_count_batch(model, images) for images in batches)
    weights = [len(macs.ledger.images) for macs in counted]
    totals = [macs.total for macs in counted]
    low, high = np.quantile(totals, QUANTILES)
    images = [tokens for macs in counted for tokens in macs.ledger.images]
    return Spread(
        total=round(np.average(totals, weights=weights)),
        method=round(np.average([macs.method for macs in counted], weights=weights)),
        total_lo=round(low),
        total_hi=round(high),
        tokens=tuple(round(mean) for mean in np.mean(images, axis=0)),
        batches=counted,
    )


def count_by_routes(model: DownsampledViT, image: Tensor) -> Routes:
    """One image's MACs by every route, agreeing or not.

    Args:
        model: In evaluation mode.
        image: (1, C, H, W).

    Raises:
        CountError: An operator is on none of the lists.
    """
    # First without the tracer: a method that fails must fail here, since a broken trace leaves its hooks behind.
    with dispatched(model) as counter:
        ledger = keep_ledger(model, image)
    refuse_unknown(counter.unknown, "as dispatched")
    return Routes(trace(model, image), counter.shares, closed_form(model, ledger), ledger)


def trace(model: DownsampledViT, image: Tensor) -> Shares:
    """Trace one image and count with fvcore.

    Args:
        model: In evaluation mode, and one that runs.
        image: (1, C, H, W).

    Raises:
        CountError: An operator is on none of the lists.
    """
    analysis = FlopCountAnalysis(_Everything(model), (image,))
    analysis.clear_op_handles().set_op_handle(**handles())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.inference_mode():
        parts = analysis.by_module_and_operator()
    refuse_unknown([name.removeprefix("aten::") for name in analysis.unsupported_ops()], "as traced")
    whole = _integers(parts[""])
    method = _integers(parts.get("model.downsampler", {})) + _integers(parts.get("model.probe", {}))
    return Shares(whole - method, method)


class _Everything(nn.Module):
    """A model that returns all that it computes: a trace forgets what nobody reads, and it ran all the same."""

    def __init__(self, model: DownsampledViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        with _Results() as results:
            logits = self.model(image)
        return logits, *results.kept


class _Results(TorchFunctionMode):
    """Keeps every tensor that comes out of a function of PyTorch's."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        found = result if isinstance(result, (tuple, list)) else (result,)
        self.kept += [value for value in found if isinstance(value, Tensor)]
        return result


def _count_batch(model: DownsampledViT, images: Tensor) -> Macs:
    with dispatched(model) as counter:
        ledger = keep_ledger(model, images)
    refuse_unknown(counter.unknown, "as dispatched")
    backbone, method = counter.shares.backbone.total(), counter.shares.method.total()
    figures = {"dispatch": backbone, "closed form": len(images) * closed_form(model, ledger)}
    _check(figures, f"backbone on a batch of {len(images)}", (counter.shares.backbone,))
    return Macs(round((backbone + method) / len(images)), round(method / len(images)), ledger)


def _check(figures: Mapping[str, int], part: str, operators: Sequence[Counter[str]]) -> None:
    """Hold the routes' figures for one part against each other.

    Raises:
        CountError: They lie further apart than the tolerance; the message names part, figures and operators.
    """
    if disagreement(figures.values()) > TOLERANCE:
        told = []
        for n, (route, macs) in enumerate(figures.items()):
            most = operators[n].most_common(SHOWN) if n < len(operators) else []
            made_of = ", ".join(f"{name} {count:,}" for name, count in most if count)
            told.append(f"{macs:,} by {route}" + (f" ({made_of})" if made_of else ""))
        raise CountError(f"the {part}'s MACs disagree: {'; '.join(told)}")


def disagreement(figures: Iterable[int]) -> float:
    """How far the figures lie apart, as a fraction of the largest; 0 where all are zero."""
    figures = tuple(figures)
    return (max(figures) - min(figures)) / max(*figures, 1)


def _integers(counts: Mapping[str, float]) -> Counter[str]:
    return Counter({name: round(macs) for name, macs in counts.items()})
