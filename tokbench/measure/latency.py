"""Time: a model against another, in pairs.

Both run on the same batch in the same process, in turn, and the order turns round each time (A-B, B-A): what drifts,
the clock or the neighbours, hits both alike. Sampling stops when the ratio is known well enough or the time is spent,
never on what the ratio is. All samples are kept.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokbench.measure.cpu import OtherLoad, pinned
from tokbench.stats.times import MIN_ROUNDS, compare_times, floor_of, median_interval

WARM_UP = 0.25  # of the time for sampling
FLOOR_BLOCKS = 5  # of a model against itself in each session
LOOK_EVERY = 10  # rounds between two looks at the interval

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Latency:
    """Paired samples of one batch's time.

    Attributes:
        base_s: Seconds of the model that is compared with, one a round.
        other_s: Seconds of the other model in the same rounds.
        half_width: Of the 95 % interval of the median log-ratio: how well the ratio is known, relatively.
        other_load: The share of all CPUs that other processes used meanwhile, 0 to 1.
    """

    base_s: tuple[float, ...]
    other_s: tuple[float, ...]
    half_width: float
    other_load: float


def measure_latency(
    base: Forward, other: Forward, batches: Sequence[Tensor], seconds: float, precision: float
) -> Latency:
    """Time two models against each other.

    Args:
        base: The model to compare with.
        other: The other one.
        batches: Each (B, C, H, W) on the models' device; round i takes batch i modulo their number. One is enough
            where the time does not depend on what the images show.
        seconds: How long to sample at most, but for ten rounds, which are always taken.
        precision: Stop earlier when the half width of the 95 % interval of the median log-ratio is this small.
    """
    read = _timer(batches[0].device)
    samples: list[tuple[float, float]] = []

    def take(turn: int) -> None:
        images = batches[turn // 2 % len(batches)]
        if turn % 2 == 0:
            first, second = read(base, images), read(other, images)
        else:
            second, first = read(other, images), read(base, images)
        samples.append((first, second))

    collecting = gc.isenabled()
    with torch.inference_mode(), pinned(torch.get_num_threads()):
        warm = time.perf_counter() + seconds * WARM_UP
        while len(samples) < 2 * min(len(batches), MIN_ROUNDS) or time.perf_counter() < warm:
            take(len(samples))
        samples.clear()
        gc.collect()
        gc.disable()
        try:
            load = OtherLoad()
            end = time.perf_counter() + seconds
            while not _enough(samples, precision, time_left=time.perf_counter() < end):
                take(len(samples))
            other_load = load.read()
        finally:
            if collecting:
                gc.enable()
    base_s, other_s = zip(*samples, strict=True)
    return Latency(base_s, other_s, _half_width(samples), other_load)


def measure_floor(forward: Forward, batches: Sequence[Tensor], seconds: float, precision: float) -> tuple[Latency, ...]:
    """Time a model against itself in five blocks: how far identical programs differ here and now.

    Args:
        forward: The model.
        batches: As `measure_latency` takes them.
        seconds: For each block.
        precision: Of each block.
    """
    return tuple(measure_latency(forward, forward, batches, seconds, precision) for _ in range(FLOOR_BLOCKS))


def noise_floor(blocks: Sequence[Latency]) -> float:
    """How far a model surely differed from itself in blocks of `measure_floor`, as a fraction."""
    return floor_of([compare_times(block.base_s, block.other_s) for block in blocks])


def _enough(samples: Sequence[tuple[float, float]], precision: float, *, time_left: bool) -> bool:
    n = len(samples)
    if n < MIN_ROUNDS or n % 2:  # both orders equally often
        return False
    return not time_left or (n % LOOK_EVERY == 0 and _half_width(samples) <= precision)


def _half_width(samples: Sequence[tuple[float, float]]) -> float:
    base, other = np.array(samples).T
    interval = median_interval(np.log(base) - np.log(other))
    return (interval.hi - interval.lo) / 2


def _timer(device: torch.device) -> Callable[[Forward, Tensor], float]:
    """What times one call, in seconds. Nothing but the call happens on the host in between."""
    if device.type != "cuda":

        def by_clock(forward: Forward, images: Tensor) -> float:
            start = time.perf_counter()
            forward(images)
            return time.perf_counter() - start

        return by_clock
    # torch's own annotations of events are incomplete.
    before: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    after: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def by_events(forward: Forward, images: Tensor) -> float:
        torch.cuda.synchronize(device)
        before.record()
        forward(images)
        after.record()
        after.synchronize()
        return float(before.elapsed_time(after)) / 1e3

    return by_events
