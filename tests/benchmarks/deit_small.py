"""The inputs of the speed benchmarks: fixed tensors of DeiT-S's geometry, on CUDA if available.

The benchmarks are not tests: a normal test run calls each once to check that it still works; `make bench` times them.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tokbench.context import Context
from tokbench.downsampler import Downsampler
from tokbench.tokens import Tokens
from tokbench.vit.attention import AttentionProbe, Heads
from tokbench.vit.noise import uniform

GRID = (14, 14)
N = GRID[0] * GRID[1]
P, D, H = 1, 384, 6
BLOCKS = 12
DEPTHS = (3, 6, 9)
KEEPS = (0.9, 0.7, 0.5)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH = 64 if DEVICE.type == "cuda" else 8


def clock() -> float:
    """The time in seconds, after all work of the GPU has finished."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normally distributed numbers from a fixed seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def tokens() -> Tokens:
    """(BATCH, P+N, D), before the first reduction."""
    return Tokens.from_sequence(normal(BATCH, P + N, D), GRID, P)


def heads(*, matrix: bool = False) -> Heads:
    """The attention of a block, with its matrix if requested."""
    q, k, v = normal(3, BATCH, H, P + N, D // H).unbind(0)
    scale = (D // H) ** -0.5
    return Heads(q, k, v, scale, None, ((q * scale) @ k.mT).softmax(dim=3) if matrix else None)


def context(method: Downsampler) -> Context:
    """The context that the method requests, at its first reduction."""
    known = AttentionProbe(method.needs)(heads(matrix="attention" in method.needs), P)
    images = torch.arange(BATCH, device=DEVICE)
    noise = partial(uniform, 0, images, DEPTHS[0], N)
    update = tokens().patches / 2 if "update" in method.needs else None
    return Context(depth=DEPTHS[0], depths=DEPTHS, stage=0, noise=noise, update=update, **known)


def in_inference(function: Callable[..., object]) -> Callable[..., object]:
    """The function in inference mode, as in all measurements."""
    return torch.inference_mode()(function)
