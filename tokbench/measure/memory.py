"""The most memory that a model takes for one batch, its weights included."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver

import psutil
import torch
from torch import Tensor

from tokbench.measure.latency import Forward

Build = Callable[[], tuple[Forward, Tensor]]
"""Makes a model and its batch (B, C, H, W)."""

MIB = 2**20


def cuda_peak_mib(forward: Forward, images: Tensor) -> float:
    """The most that CUDA's allocator held during one forward pass, MiB.

    Args:
        forward: The model.
        images: (B, C, H, W) on its CUDA device.
    """
    torch.cuda.reset_peak_memory_stats(images.device)
    with torch.inference_mode():
        forward(images)
    torch.cuda.synchronize(images.device)
    return torch.cuda.max_memory_allocated(images.device) / MIB


@contextmanager
def measuring_processes(preload: str) -> Iterator[Executor]:
    """Processes for `cpu_peak_mib`, a fresh one for each call, all forked from one that has done nothing but import.

    What this process holds (images, other models, memory that the allocator keeps) is so no part of the figure.

    Args:
        preload: The module that is imported once for all of them.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([preload])
        # Ctrl-C reaches every process of a terminal: what it ends is for this one to say.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, handler)
    with ProcessPoolExecutor(max_workers=1, mp_context=context, max_tasks_per_child=1) as processes:
        yield processes


def cpu_peak_mib(processes: Executor, build: Build, threads: int) -> float:
    """The most that a process grew by while it built the model and ran one forward pass, MiB.

    Args:
        processes: From `measuring_processes`.
        build: Runs in the other process and must be picklable.
        threads: For computing.

    Raises:
        Exception: Whatever building or running raises there.
    """
    return processes.submit(_grown_mib, build, threads).result()


def _grown_mib(build: Build, threads: int) -> float:
    torch.set_num_threads(threads)
    before = _peak_bytes()
    forward, images = build()
    with torch.inference_mode():
        forward(images)
    return (_peak_bytes() - before) / MIB


def _peak_bytes() -> int:
    """The most memory that this process ever had."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
