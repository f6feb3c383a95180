"""Numbers in float64, also from a device that has none."""

from __future__ import annotations

from torch import Tensor


def in_double(values: Tensor) -> Tensor:
    """The values in float64: on their own device, or on the CPU where it has no such numbers (Apple's MPS)."""
    return values.cpu().double() if values.device.type == "mps" else values.double()
