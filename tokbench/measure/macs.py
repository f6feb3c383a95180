"""Compute: multiply-accumulates of one image, traced and reconciled with the closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor

from tokbench.backbone import DownsampledViT
from tokbench.measure.ledger import Ledger, closed_form, keep_ledger
from tokbench.measure.operators import handles

TOLERANCE = 0.001  # between the traced backbone and the closed form


class CountError(RuntimeError):
    """The MACs of a cell cannot be told; the message names the operator or the two figures that disagree."""


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


def count_macs(model: DownsampledViT, image: Tensor) -> Macs:
    """Trace one image and count.

    Args:
        model: In evaluation mode.
        image: (1, C, H, W) in the model's dtype and on its device.

    Raises:
        CountError: An operator is on none of the lists, or trace and closed form disagree.
    """
    # First without the tracer: a method that fails must fail here, since a broken trace leaves its hooks behind.
    ledger = keep_ledger(model, image)
    analysis = FlopCountAnalysis(model, (image,))
    analysis.clear_op_handles().set_op_handle(**handles())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.inference_mode():
        total = int(analysis.total())
    unknown = sorted(analysis.unsupported_ops())
    if unknown:
        raise CountError(
            f"operator {unknown[0]} is not on the lists of counted, element-wise and comparison operators, "
            "so its MACs are unknown; spell it otherwise, or add it to tokbench/measure/operators.py"
        )
    parts = analysis.by_module()
    method = int(parts["downsampler"] + parts["probe"])
    expected = closed_form(model, ledger)
    if abs(total - method - expected) > TOLERANCE * expected:
        raise CountError(
            f"the traced backbone has {(total - method) / 1e9:.4f} gmacs, "
            f"the closed form from its measured tokens {expected / 1e9:.4f}"
        )
    return Macs(total, method, ledger)
