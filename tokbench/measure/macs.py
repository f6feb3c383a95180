"""Compute: the multiply-accumulates (MACs) of one image, counted by several routes that must agree.

The backbone is counted by three routes: from a trace (fvcore, with the handles of `operators`), from the operators as
they are dispatched (`dispatch`), and by the closed form from the measured token counts (`ledger`). The method is
counted by the first two. Counts that disagree by more than 0.1 % are an error.
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

from tokbench.measure.dispatch import count_dispatched
from tokbench.measure.ledger import Ledger, closed_form, count_tokens
from tokbench.measure.operators import CountError, Shares, handles, refuse_unknown
from tokbench.vit.backbone import METHOD_PARTS, DownsampledViT

TOLERANCE = 0.001  # between any two routes, as a fraction of the larger count, so zero agrees only with zero
QUANTILES = (0.05, 0.95)
SHOWN = 5  # how many operators the message of a disagreement lists


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one image.

    Attributes:
        total: Backbone and method.
        method: The downsampler alone, including the computation of the context that it requests.
        ledger: The token counts of the blocks.
    """

    total: int
    method: int
    ledger: Ledger


@dataclass(frozen=True)
class Spread:
    """Multiply-accumulates of one image where they differ from batch to batch.

    Attributes:
        total: Mean over the images, including padding.
        method: The downsampler alone, mean over the images.
        total_lo: 5 % quantile over the batches.
        total_hi: 95 % quantile over the batches.
        tokens: Patch tokens that leave each block, mean over the images, without padding, rounded.
        batches: For each batch the MACs per image; the ledger has the token counts of each image.
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
        traced: From fvcore's trace.
        dispatched: From the operators that PyTorch dispatched.
        closed_form: The backbone's MACs, computed from the token counts.
        ledger: Those token counts.
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
        CountError: An operator is not on any list, or two routes disagree.
    """
    routes = count_by_routes(model, image)
    _check(routes.backbone, "backbone", (routes.traced.backbone, routes.dispatched.backbone))
    _check(routes.method, "method", (routes.traced.method, routes.dispatched.method))
    method = routes.method["trace"]
    return Macs(routes.backbone["trace"] + method, method, routes.ledger)


def spread_of_macs(model: DownsampledViT, batches: Sequence[Tensor]) -> Spread:
    """Count an adaptive method on real batches, each padded to its longest image.

    Both shares are counted as dispatched, and the backbone is checked against the closed form. Batches are not traced;
    `count_macs` checks on one image that both counters agree about the method.

    Args:
        model: In evaluation mode.
        batches: One or more (B, C, H, W), with the batch size B of the row, because padding grows with B.

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
    """Count one image's MACs by every route, without requiring that they agree.

    Args:
        model: In evaluation mode.
        image: (1, C, H, W).

    Raises:
        CountError: An operator is not on any list.
    """
    # First without the tracer: a method that raises must raise here, because an aborted trace leaves hooks behind.
    with count_dispatched(model) as counter:
        ledger = count_tokens(model, image)
    refuse_unknown(counter.unknown, "as dispatched")
    return Routes(trace(model, image), counter.shares, closed_form(model, ledger), ledger)


def trace(model: DownsampledViT, image: Tensor) -> Shares:
    """Trace one image and count with fvcore.

    Args:
        model: In evaluation mode; it must run without an error.
        image: (1, C, H, W).

    Raises:
        CountError: An operator is not on any list.
    """
    analysis = FlopCountAnalysis(_AllOutputs(model), (image,))
    analysis.clear_op_handles().set_op_handle(**handles())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.inference_mode():
        parts = analysis.by_module_and_operator()
    refuse_unknown([name.removeprefix("aten::") for name in analysis.unsupported_ops()], "as traced")
    whole = _integers(parts[""])
    method = sum((_integers(parts.get(f"model.{part}", {})) for part in METHOD_PARTS), Counter())
    return Shares(whole - method, method)


class _AllOutputs(nn.Module):
    """Wraps a model so that it returns every tensor it computes.

    A trace drops results that are never used, although the model spends time on them.
    """

    def __init__(self, model: DownsampledViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        with _ResultRecorder() as recorder:
            logits = self.model(image)
        return logits, *recorder.tensors


class _ResultRecorder(TorchFunctionMode):
    """Collects every tensor that a PyTorch function returns."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        values = result if isinstance(result, (tuple, list)) else (result,)
        self.tensors += [value for value in values if isinstance(value, Tensor)]
        return result


def _count_batch(model: DownsampledViT, images: Tensor) -> Macs:
    with count_dispatched(model) as counter:
        ledger = count_tokens(model, images)
    refuse_unknown(counter.unknown, "as dispatched")
    backbone, method = counter.shares.backbone.total(), counter.shares.method.total()
    counts = {"dispatch": backbone, "closed form": len(images) * closed_form(model, ledger)}
    _check(counts, f"backbone on a batch of {len(images)}", (counter.shares.backbone,))
    return Macs(round((backbone + method) / len(images)), round(method / len(images)), ledger)


def _check(counts: Mapping[str, int], part: str, operators: Sequence[Counter[str]]) -> None:
    """Check that the routes agree on one part of the model.

    Raises:
        CountError: They differ by more than the tolerance; the message names the part, the counts and the operators.
    """
    if disagreement(counts.values()) > TOLERANCE:
        by_route = []
        for n, (route, macs) in enumerate(counts.items()):
            largest = operators[n].most_common(SHOWN) if n < len(operators) else []
            details = ", ".join(f"{name} {count:,}" for name, count in largest if count)
            by_route.append(f"{macs:,} by {route}" + (f" ({details})" if details else ""))
        raise CountError(f"the MAC counts of the {part} disagree: {'; '.join(by_route)}")


def disagreement(counts: Iterable[int]) -> float:
    """The difference between the largest and the smallest count, as a fraction of the largest; 0 if all are zero."""
    counts = tuple(counts)
    return (max(counts) - min(counts)) / max(*counts, 1)


def _integers(counts: Mapping[str, float]) -> Counter[str]:
    return Counter({name: round(macs) for name, macs in counts.items()})
