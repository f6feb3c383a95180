"""Time: two models timed against each other, in pairs.

Both run on the same batch in the same process, in alternating order (A-B, B-A), so that drift of the clock and load
from other processes affect both equally. Sampling stops when the ratio is known precisely enough or the time is up; the
value of the ratio plays no part in that. All samples are kept.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokbench.measure.call_timer import Forward, Timing, call_timer
from tokbench.measure.cpu import OtherLoad, pinned
from tokbench.stats.times import MIN_ROUNDS, compare_times, floor_of, median_interval

WARM_UP = 0.25  # duration of the warm-up, as a fraction of the sampling time
FLOOR_BLOCKS = 5  # blocks in which a model is timed against itself, per session
CHECK_EVERY = 10  # rounds between two checks of the interval


@dataclass(frozen=True)
class Latency:
    """Paired samples of one batch's time.

    Attributes:
        base_s: Seconds of the reference model, one per round.
        other_s: Seconds of the other model in the same rounds.
        half_width: The precision reached: half the width of the 95 % interval of the median log-ratio.
        other_load: The share of all CPUs that other processes used in the meantime, 0 to 1.
        host_s: The median seconds that the host took to queue a call, of the reference model and of the other; empty on
            a CPU, where nothing is queued.
    """

    base_s: tuple[float, ...]
    other_s: tuple[float, ...]
    half_width: float
    other_load: float
    host_s: tuple[float, ...] = ()


def measure_latency(
    base: Forward,
    other: Forward,
    batches: Sequence[Tensor],
    seconds: float,
    precision: float,
    *,
    other_batches: Sequence[Tensor] | None = None,
    flush: Callable[[], None] | None = None,
) -> Latency:
    """Time two models against each other.

    Args:
        base: The reference model.
        other: The model to compare with it.
        batches: Each (B, C, H, W) on the models' device; used in turn, each for one round per order. One is enough
            where the time does not depend on the content of the images.
        seconds: Time limit for sampling; ten rounds are always taken.
        precision: Stop earlier when this precision is reached, a fraction.
        other_batches: Those of the other model, as many, where it reads images of another size.
        flush: Clears the caches before each timed call; see `cache_flush`.
    """
    device = batches[0].device
    time_call = call_timer(device, flush)
    pairs = list(zip(batches, batches if other_batches is None else other_batches, strict=True))
    samples: list[tuple[float, float]] = []
    on_host: list[tuple[float, float]] = []

    def take_sample(turn: int) -> None:
        images, other_images = pairs[turn // 2 % len(pairs)]
        if turn % 2 == 0:
            one, two = time_call(base, images), time_call(other, other_images)
        else:
            two, one = time_call(other, other_images), time_call(base, images)
        samples.append((one.total_s, two.total_s))
        on_host.append((one.host_s, two.host_s))

    gc_was_enabled = gc.isenabled()
    with torch.inference_mode(), pinned(torch.get_num_threads(), device):
        take_sample(0)  # compiles what is compiled: the clock of the warm-up starts afterwards
        warm_up_end = time.perf_counter() + seconds * WARM_UP
        while len(samples) < 2 * min(len(batches), MIN_ROUNDS) or time.perf_counter() < warm_up_end:
            take_sample(len(samples))
        samples.clear()
        on_host.clear()
        gc.collect()
        gc.disable()
        try:
            load = OtherLoad()
            end = time.perf_counter() + seconds
            while not _enough(samples, precision, time_left=time.perf_counter() < end):
                take_sample(len(samples))
            other_load = load.read()
        finally:
            if gc_was_enabled:
                gc.enable()
    base_s, other_s = zip(*samples, strict=True)
    host_s = () if device.type == "cpu" else tuple(float(median) for median in np.median(on_host, axis=0))
    return Latency(base_s, other_s, _half_width(samples), other_load, host_s)


def measure_floor(
    build: Callable[[], Forward],
    batches: Sequence[Tensor],
    seconds: float,
    precision: float,
    *,
    flush: Callable[[], None] | None = None,
) -> tuple[Latency, ...]:
    """Time a model against itself in five blocks, to find out how far identical programs differ on this machine now.

    Both are built anew for each block, since where the weights lie in memory and what a compiler decides also make
    identical programs differ.

    Args:
        build: Builds the model.
        batches: As for `measure_latency`.
        seconds: Time limit per block.
        precision: As for `measure_latency`, of each block.
        flush: As for `measure_latency`.
    """
    return tuple(
        measure_latency(build(), build(), batches, seconds, precision, flush=flush) for _ in range(FLOOR_BLOCKS)
    )


def measure_alone(forward: Forward, batches: Sequence[Tensor], seconds: float) -> float:
    """The median time of a call, in seconds, while a model runs alone without pause.

    In pairs two models share one clock frequency: under a power limit, the heavier one slows the lighter one down.

    Args:
        forward: The model.
        batches: As for `measure_latency`.
        seconds: How long; the first half is a warm-up.
    """
    time_call = call_timer(batches[0].device)
    samples: list[Timing] = []
    with torch.inference_mode():
        end = time.perf_counter() + seconds
        while len(samples) < 2 * MIN_ROUNDS or time.perf_counter() < end:
            samples.append(time_call(forward, batches[len(samples) % len(batches)]))
    return float(np.median([sample.total_s for sample in samples[len(samples) // 2 :]]))


def noise_floor(blocks: Sequence[Latency]) -> float:
    """The noise floor: how far a model differed from itself beyond sampling error, as a fraction; see `floor_of`.

    Args:
        blocks: From `measure_floor`.
    """
    return floor_of([compare_times(block.base_s, block.other_s) for block in blocks])


def _enough(samples: Sequence[tuple[float, float]], precision: float, *, time_left: bool) -> bool:
    n = len(samples)
    if n < MIN_ROUNDS or n % 2:  # take both orders equally often
        return False
    return not time_left or (n % CHECK_EVERY == 0 and _half_width(samples) <= precision)


def _half_width(samples: Sequence[tuple[float, float]]) -> float:
    base, other = np.array(samples).T
    interval = median_interval(np.log(base) - np.log(other))
    return (interval.hi - interval.lo) / 2
