"""The CPU during a measurement: pinning threads to cores, and the load of other processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch


@contextmanager
def pinned(threads: int, device: torch.device) -> Iterator[None]:
    """Pin all threads of this process to as many CPUs as it has compute threads.

    A thread that migrates starts with cold caches, and two threads may share one core while another core is idle.
    Nothing changes where the system has no such call (macOS), where all CPUs are needed, or where an accelerator
    computes: several processes, each with a GPU of its own, would share the first CPU.

    Args:
        threads: Number of compute threads.
        device: Where the model runs.
    """
    if sys.platform != "linux" or device.type != "cpu":
        yield
        return
    allowed = os.sched_getaffinity(0)
    chosen = set(sorted(allowed)[:threads])
    if chosen == allowed:
        yield
        return
    _pin(chosen)
    try:
        yield
    finally:
        _pin(allowed)


def usable_cpus() -> int:
    """How many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class OtherLoad:
    """Measures how much of the CPUs other processes use, from its creation on."""

    def __init__(self) -> None:
        """Start measuring."""
        self._process = psutil.Process()
        self._start = time.perf_counter()
        self._busy = _busy()
        self._own = self._own_seconds()

    def read(self) -> float:
        """The share of all CPUs that other processes have used since the start, 0 to 1."""
        elapsed = (time.perf_counter() - self._start) * (psutil.cpu_count() or 1)
        others = (_busy() - self._busy) - (self._own_seconds() - self._own)
        return min(1.0, max(0.0, others / elapsed))

    def _own_seconds(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


def _busy() -> float:
    """CPU seconds used by all processes of the machine together."""
    times = psutil.cpu_times()
    return times.user + times.system + getattr(times, "nice", 0.0)


def _pin(cpus: set[int]) -> None:
    if sys.platform == "linux":
        for thread in Path("/proc/self/task").iterdir():
            try:
                os.sched_setaffinity(int(thread.name), cpus)
            except ProcessLookupError:  # the thread has ended in the meantime
                continue
