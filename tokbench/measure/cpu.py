"""The CPU around a measurement: threads held to their cores, and what other processes take of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Hold this process, all of its threads, to as many of its CPUs as it computes with.

    A thread that moves finds cold caches, and two may meet on one core while another idles. Where the system has no
    such call (macOS), or gives it no effect because all CPUs are needed, nothing changes.

    Args:
        threads: How many threads compute.
    """
    if sys.platform != "linux":
        yield
        return
    allowed = os.sched_getaffinity(0)
    chosen = set(sorted(allowed)[:threads])
    if chosen == allowed:
        yield
        return
    _hold(chosen)
    try:
        yield
    finally:
        _hold(allowed)


def usable_cpus() -> int:
    """How many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class OtherLoad:
    """What other processes use of the CPUs from now on."""

    def __init__(self) -> None:
        """Start to watch."""
        self._process = psutil.Process()
        self._start = time.perf_counter()
        self._busy = _busy()
        self._own = self._own_seconds()

    def read(self) -> float:
        """The share of all CPUs that other processes had since the start, 0 to 1."""
        elapsed = (time.perf_counter() - self._start) * (psutil.cpu_count() or 1)
        others = (_busy() - self._busy) - (self._own_seconds() - self._own)
        return min(1.0, max(0.0, others / elapsed))

    def _own_seconds(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


def _busy() -> float:
    """CPU seconds that the machine has been working, by all processes together."""
    times = psutil.cpu_times()
    return times.user + times.system + getattr(times, "nice", 0.0)


def _hold(cpus: set[int]) -> None:
    if sys.platform == "linux":
        for thread in Path("/proc/self/task").iterdir():
            try:
                os.sched_setaffinity(int(thread.name), cpus)
            except ProcessLookupError:  # it ended meanwhile
                continue
