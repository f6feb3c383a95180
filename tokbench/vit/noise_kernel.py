"""The random numbers of `tokbench.vit.noise` as one Triton kernel: the same hash, in unsigned integers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

INCREMENT = tl.constexpr(0x9E3779B97F4A7C15)  # of splitmix64, with the two multipliers
FIRST = tl.constexpr(0xBF58476D1CE4E5B9)
SECOND = tl.constexpr(0x94D049BB133111EB)
BLOCK = 256  # numbers of a program


def uniform(image_ids: Tensor, seed_state: int, depth: int, n: int) -> Tensor:
    """Uniform numbers in [0, 1) for each image's tokens.

    Args:
        image_ids: (B,) int64, on a CUDA device.
        seed_state: The hash of the seed, in [0, 2^64).
        depth: The block's index.
        n: N, the number of random numbers per image.

    Returns:
        (B, N) float32.
    """
    numbers = torch.empty(image_ids.shape[0], n, device=image_ids.device)
    if numbers.numel():
        programs = (image_ids.shape[0], triton.cdiv(n, BLOCK))
        _uniform[programs](image_ids.contiguous(), numbers, seed_state, depth, n, BLOCK=BLOCK)
    return numbers


@triton.jit
def _mix(state):  # type: ignore[no-untyped-def]
    """One step of splitmix64."""
    state = state + INCREMENT
    state = (state ^ (state >> 30)) * FIRST
    state = (state ^ (state >> 27)) * SECOND
    return state ^ (state >> 31)


@triton.jit  # type: ignore[untyped-decorator]
def _uniform(image_ids, numbers, seed_state, depth, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Some numbers of one image."""
    image = tl.program_id(0)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    state = _mix(tl.load(image_ids + image).to(tl.uint64) ^ tl.cast(seed_state, tl.uint64))
    state = _mix(state ^ tl.cast(depth, tl.uint64))
    state = _mix(state ^ token.to(tl.uint64))
    tl.store(numbers + image.to(tl.int64) * n + token, (state >> 40).to(tl.float32) * (1 / 16777216), mask=token < n)
