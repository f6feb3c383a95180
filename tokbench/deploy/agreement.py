"""How far the answers of an exported model are those of the model that it was exported from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """Two models' logits for a batch.

    Attributes:
        top1: The share of the images to which both give the same answer, 0 to 1.
        largest: The largest difference of a logit.
    """

    top1: float
    largest: float


def compare_outputs(eager: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], images: Tensor) -> Difference:
    """Compare the logits of two models for a batch (B, C, H, W)."""
    with torch.inference_mode():
        expected, found = eager(images).float(), other(images).float()
    same = expected.argmax(dim=1) == found.argmax(dim=1)
    return Difference(float(same.float().mean()), float((expected - found).abs().max()))
