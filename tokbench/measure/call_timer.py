"""Timing one call of a model on a device, isolated: the device is idle before it and has finished after it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokbench.measure.accelerator import synchronize

Forward = Callable[[Tensor], Tensor]
"""A model: from images (B, C, H, W) to logits."""


@dataclass(frozen=True)
class Timing:
    """The time of one call, in seconds.

    Attributes:
        total_s: Until the device has finished.
        host_s: Until the host has queued everything. On a CPU, where nothing is queued, the same.
    """

    total_s: float
    host_s: float


def call_timer(device: torch.device, flush: Callable[[], None] | None = None) -> Callable[[Forward, Tensor], Timing]:
    """A function that times one call. Between two readings of the clock the host does nothing but the call.

    Args:
        device: Where the model runs. On CUDA, events in its queue give the time; on other accelerators the host's
            clock does, with a wait before and after the call.
        flush: Called before each timed call, to clear the caches; the device finishes it first.
    """
    if device.type == "cuda":
        return _by_events(device, flush)

    def by_clock(forward: Forward, images: Tensor) -> Timing:
        if flush is not None:
            flush()
        synchronize(device)
        start = time.perf_counter()
        forward(images)
        queued = time.perf_counter()
        synchronize(device)
        return Timing(time.perf_counter() - start, queued - start)

    return by_clock


def _by_events(device: torch.device, flush: Callable[[], None] | None) -> Callable[[Forward, Tensor], Timing]:
    # torch's annotations of CUDA events are incomplete.
    before: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    after: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def by_events(forward: Forward, images: Tensor) -> Timing:
        stream = torch.cuda.current_stream(device)  # record() without it takes the stream of the current device
        if flush is not None:
            flush()
        synchronize(device)
        start = time.perf_counter()
        before.record(stream)
        forward(images)
        after.record(stream)
        queued = time.perf_counter()
        after.synchronize()
        return Timing(float(before.elapsed_time(after)) / 1e3, queued - start)

    return by_events
