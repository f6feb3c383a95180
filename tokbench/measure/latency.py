"""Time: a model against the plain one, in pairs.

Both run on the same batch in the same process, in turn, and the order turns round each time (A-B, B-A): what drifts,
the clock or the neighbours, hits both alike. All samples are kept.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_ROUNDS = 10  # with fewer, a signed-rank test cannot fall below p = 0.002
WARM_UP = 0.25  # of the time for sampling

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Latency:
    """Paired samples of one batch's time.

    Attributes:
        plain_s: Seconds of the plain model, one a round.
        method_s: Seconds of the other model in the same rounds.
        peak_mib: The most memory that CUDA's allocator held while the other model ran once, MiB; None on a CPU.
    """

    plain_s: tuple[float, ...]
    method_s: tuple[float, ...]
    peak_mib: float | None


def measure_latency(plain: Forward, method: Forward, images: Tensor, seconds: float) -> Latency:
    """Time two models on one batch.

    Args:
        plain: The untouched model.
        method: The other one.
        images: (B, C, H, W) on the models' device.
        seconds: How long to sample; at least ten rounds are taken.
    """
    with torch.inference_mode():
        peak = _peak_mib(method, images)
        _until(seconds * WARM_UP, lambda _: (_time(plain, images), _time(method, images)), rounds=2)
        samples: list[tuple[float, float]] = []

        def take(turn: int) -> None:
            if turn % 2 == 0:
                first, second = _time(plain, images), _time(method, images)
            else:
                second, first = _time(method, images), _time(plain, images)
            samples.append((first, second))

        collecting = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            _until(seconds, take, rounds=MIN_ROUNDS)
        finally:
            if collecting:
                gc.enable()
    plain_s, method_s = zip(*samples, strict=True)
    return Latency(plain_s, method_s, peak)


def _until(seconds: float, step: Callable[[int], object], rounds: int) -> None:
    """Repeat a step for a time, and for a number of rounds at least."""
    turn = 0
    end = time.perf_counter() + seconds
    while turn < rounds or time.perf_counter() < end:
        step(turn)
        turn += 1


def _time(forward: Forward, images: Tensor) -> float:
    _synchronize(images)
    start = time.perf_counter()
    forward(images)
    _synchronize(images)
    return time.perf_counter() - start


def _synchronize(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


def _peak_mib(forward: Forward, images: Tensor) -> float | None:
    if not images.is_cuda:
        return None
    torch.cuda.reset_peak_memory_stats(images.device)
    forward(images)
    _synchronize(images)
    return torch.cuda.max_memory_allocated(images.device) / 2**20
