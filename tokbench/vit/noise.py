"""Random numbers that depend on the image, not on its position in a batch.

A counter-based generator: each number is a hash of (seed, image, depth, token). So random choices do not depend on the
other images in the batch, on sharding, or on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokbench.token_groups import has_triton

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
    state = _signed(_mixed(seed))
    # Elsewhere, an exporter sees what it consists of.
    return hashed(image_ids, state, depth, n) if image_ids.is_cuda else hashed_by_operators(image_ids, state, depth, n)


@torch.library.custom_op(
    "tokbench::uniform",
    mutates_args=(),
    schema="(Tensor image_ids, int seed_state, int depth, SymInt n) -> Tensor",
)
def hashed(image_ids: Tensor, seed_state: int, depth: int, n: int) -> Tensor:
    """What `uniform` does, from the hash of the seed as a signed 64-bit integer; one kernel where there is Triton."""
    if image_ids.is_cuda and has_triton():
        from tokbench.vit import noise_kernel  # Triton is not installed without a GPU

        with torch.cuda.device(image_ids.device):
            return noise_kernel.uniform(image_ids, seed_state % 2**64, depth, n)
    return hashed_by_operators(image_ids, seed_state, depth, n)


@hashed.register_fake
def _(image_ids: Tensor, seed_state: int, depth: int, n: int) -> Tensor:
    return torch.empty(image_ids.shape[0], n, device=image_ids.device)


def hashed_by_operators(image_ids: Tensor, seed_state: int, depth: int, n: int) -> Tensor:
    """The same by PyTorch's operators; what exporters see of it."""
    state = _mix(image_ids ^ seed_state)
    state = _mix(state ^ depth)
    tokens = torch.arange(n, device=image_ids.device)
    state = _mix(state[:, None] ^ tokens)
    return _shift(state, 64 - _BITS).to(torch.float32) * 2.0**-_BITS


def _mix(state: Tensor) -> Tensor:
    """One step of splitmix64 on int64, where products wrap around."""
    state = state + _INCREMENT
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        state = (state ^ _shift(state, shift)) * multiplier
    return state ^ _shift(state, _SHIFTS[-1])


def _shift(state: Tensor, bits: int) -> Tensor:
    """Logical right shift; the right shift of int64 is arithmetic."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(seed: int) -> int:
    """One step of splitmix64 on a Python integer, in [0, 2^64)."""
    state = (seed + _INCREMENT) % 2**64
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        state = (state ^ (state >> shift)) * multiplier % 2**64
    return state ^ (state >> _SHIFTS[-1])


def _signed(state: int) -> int:
    """The signed 64-bit integer with the same bits as one in [0, 2^64)."""
    return (state + 2**63) % 2**64 - 2**63
