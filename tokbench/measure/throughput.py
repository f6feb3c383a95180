"""Throughput: images per second while batches are queued without waiting for each of them.

The latency of one synchronised batch says how long a user waits; throughput says how many images a machine gets
through. Source: the scenarios SingleStream and Offline of the MLPerf Inference rules.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokbench.measure.accelerator import synchronize
from tokbench.measure.call_timer import Forward
from tokbench.measure.cpu import pinned
from tokbench.stats.times import MIN_ROUNDS

LARGEST_BATCH = {"cpu": 64}  # images; a larger batch gains nothing on a CPU
LARGEST_GPU_BATCH = 1024
GAIN = 1.03  # a doubled batch must be this much faster, or the next one, to be worth its memory
TRIAL_SECONDS = 0.2  # for each batch size that is tried

Batches = Callable[[int], Tensor]
"""Images (B, C, H, W) for a batch size."""


@dataclass(frozen=True)
class Throughput:
    """Paired samples of a queue's time.

    Attributes:
        base_s: Seconds per image of the reference model, one per round.
        other_s: Seconds per image of the other model in the same rounds.
    """

    base_s: tuple[float, ...]
    other_s: tuple[float, ...]


def best_batch(forward: Forward, images: Batches, device: torch.device) -> int:
    """The batch size with the highest throughput, by doubling until that has gained too little twice in a row.

    Args:
        forward: The model, eager.
        images: Gives batches of any size on the device.
        device: Where the model runs.

    Raises:
        RuntimeError: The model fails even for one image.
    """
    speeds: dict[int, float] = {}
    size = 1
    while size <= LARGEST_BATCH.get(device.type, LARGEST_GPU_BATCH):
        try:
            batch = images(size)
            seconds_per_image(forward, batch, 1)  # a warm-up
            calls = _calls_within(TRIAL_SECONDS, seconds_per_image(forward, batch, 1) * size)
            speeds[size] = 1 / seconds_per_image(forward, batch, calls)
        except torch.OutOfMemoryError:
            if not speeds:
                raise
            break
        if _gained_little(list(speeds.values())):
            break
        size *= 2
    return max(speeds, key=lambda size: speeds[size])


def measure_throughput(
    base: tuple[Forward, Tensor], other: tuple[Forward, Tensor], seconds: float, rounds: int = MIN_ROUNDS
) -> Throughput:
    """Measure the throughput of two models in turn, in blocks of queued batches.

    Args:
        base: The reference model and its batch (B, C, H, W).
        other: The model to compare with it, and its batch, which may be of another size.
        seconds: Time limit for all blocks together; each has at least one batch.
        rounds: Blocks of each model, in alternating order.
    """
    device = base[1].device
    samples: list[tuple[float, float]] = []
    gc_was_enabled = gc.isenabled()
    with torch.inference_mode(), pinned(torch.get_num_threads(), device):
        block_s = seconds / (2 * rounds)
        calls = []
        for forward, images in (base, other):
            seconds_per_image(forward, images, 1)  # compiles what is compiled
            calls.append(_calls_within(block_s, seconds_per_image(forward, images, 1) * len(images)))
        gc.collect()
        gc.disable()
        try:
            for number in range(rounds):
                order = (0, 1) if number % 2 == 0 else (1, 0)
                taken = {which: seconds_per_image(*(base, other)[which], calls[which]) for which in order}
                samples.append((taken[0], taken[1]))
        finally:
            if gc_was_enabled:
                gc.enable()
    base_s, other_s = zip(*samples, strict=True)
    return Throughput(base_s, other_s)


def seconds_per_image(forward: Forward, images: Tensor, calls: int) -> float:
    """Queue a batch several times and wait once.

    Args:
        forward: The model.
        images: (B, C, H, W) on its device.
        calls: How often.
    """
    device = images.device
    with torch.inference_mode():
        synchronize(device)
        start = time.perf_counter()
        for _ in range(calls):
            forward(images)
        synchronize(device)
    return (time.perf_counter() - start) / (calls * len(images))


def _calls_within(seconds: float, call_s: float) -> int:
    return max(1, math.ceil(seconds / call_s))


def _gained_little(speeds: Sequence[float]) -> bool:
    """Whether the last two doublings have both gained less than they should."""
    best_before = max(speeds[:-2], default=0.0)
    return len(speeds) > 2 and max(speeds[-2:]) < GAIN * best_before
