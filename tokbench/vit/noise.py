"""Random numbers that depend on the image, not on its position in a batch.

A counter-based generator: each number is a hash of (seed, image, depth, token). So random choices do not depend on the
other images in the batch, on sharding, or on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

# splitmix64 (Steele, Lea, Flood 2014): the golden-ratio increment and the two multipliers, as signed 64-bit integers.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_SHIFTS = (30, 27, 31)
_BITS = 24  # of the mantissa of a float32


def uniform(seed: int, image_ids: Tensor, depth: int, n: int) -> Tensor:
    """Uniform numbers in [0, 1) for each image's tokens.

    Args:
        seed: Any integer.
        image_ids: (B,) int64, one id per image.
        depth: The block's index.
        n: N, the number of random numbers per image.

    Returns:
        (B, N) float32, multiples of 2^-24.
    """
    seed = (seed + 2**63) % 2**64 - 2**63  # as a signed 64-bit integer
    state = _mix(torch.full_like(image_ids, seed))
    state = _mix(state ^ image_ids)
    state = _mix(state ^ depth)
    tokens = torch.arange(n, device=image_ids.device)
    state = _mix(state[:, None] ^ tokens)
    return _shift(state, 64 - _BITS).to(torch.float32) * 2.0**-_BITS


def _mix(state: Tensor) -> Tensor:
    """One step of splitmix64 on int64, where products wrap around."""
    state = state + _INCREMENT
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, 1), strict=True):
        state = (state ^ _shift(state, shift)) * multiplier
    return state


def _shift(state: Tensor, bits: int) -> Tensor:
    """Logical right shift; the right shift of int64 is arithmetic."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
