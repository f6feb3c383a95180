"""How far a model in a runtime gives the answers of the same model in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """How far the outputs of two models differ on a batch.

    Attributes:
        top1: The share of the images that both give the same class, 0 to 1.
        largest: The largest absolute difference of a logit; inf where only one of the two is not finite.
    """

    top1: float
    largest: float


def compare_outputs(eager: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], images: Tensor) -> Difference:
    """Run two models on the same images.

    On random images or with random weights, logits are nearly equal, so that their order says little: then `largest` is
    the better measure.

    Args:
        eager: From images to logits (B, classes).
        other: The same.
        images: (B, C, H, W).
    """
    with torch.inference_mode():
        expected, found = eager(images).double(), other(images).double()
    same = expected.argmax(dim=1) == found.argmax(dim=1)
    largest = (expected - found).abs().nan_to_num(nan=torch.inf).max()
    return Difference(float(same.double().mean()), float(largest))
