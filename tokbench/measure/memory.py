"""The peak memory of a model for one batch, including its weights."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from typing import Self

import psutil
import torch
from torch import Tensor

from tokbench.measure.call_timer import Forward
from tokbench.measure.precision import mixed_precision
from tokbench.names import Dtype

Build = Callable[[], tuple[Forward, Tensor]]
"""Builds a model and its batch (B, C, H, W)."""

MIB = 2**20
WEIGHED_CALLS = 2  # a compiled model with CUDA graphs captures them at its second call


class ProcessEndedError(RuntimeError):
    """A measuring process ended before it had a result."""


def cuda_peak_mib(load: Callable[[], Forward], images: Tensor, calls_before: int = 0) -> float:
    """The peak of torch's allocated CUDA memory while a model is loaded and runs, MiB.

    A CUDA graph allocates its activations while it is captured and nothing when it is replayed, so loading counts.

    Args:
        load: Gives the function that runs the model, as `in_mode` does.
        images: (B, C, H, W) on its CUDA device.
        calls_before: Calls that do not count: compiling takes more memory than what it compiles.
    """
    device = images.device
    torch.cuda.reset_peak_memory_stats(device)
    with torch.inference_mode():
        forward = load()
        if calls_before:
            for _ in range(calls_before):
                forward(images)
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        for _ in range(WEIGHED_CALLS):
            forward(images)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / MIB


class MeasuringProcesses:
    """Processes for `cpu_peak_mib`: a fresh one per call, forked from a server that has only done imports.

    Memory held by this process (images, other models, memory kept by the allocator) is therefore not counted.
    """

    def __init__(self, preload: str) -> None:
        """Start the server.

        Args:
            preload: The module that the server imports once for all processes.
        """
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload([preload])
            # Ctrl-C is sent to every process of the terminal. The server and its children inherit this handler and
            # ignore it, so that this process alone decides when they end.
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                forkserver.ensure_running()
            finally:
                signal.signal(signal.SIGINT, handler)
        self._pool = self._open()

    def __enter__(self) -> Self:
        """Use it in a `with` block, which ends the processes."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        self._pool.shutdown()

    def run(self, function: Callable[..., float], *arguments: object) -> float:
        """Call a function in a new process.

        Raises:
            ProcessEndedError: The process ended before the function returned.
            Exception: Whatever the function raises.
        """
        try:
            return self._pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = self._open()
            raise ProcessEndedError("the process that measured the memory was ended") from None

    def _open(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(max_workers=1, mp_context=self._context, max_tasks_per_child=1)


def cpu_peak_mib(processes: MeasuringProcesses, build: Build, threads: int, dtype: Dtype = "fp32") -> float:
    """By how much a process's peak memory grew while it built the model and ran one forward pass, MiB.

    Args:
        processes: Where it runs.
        build: Runs in the other process and must be picklable.
        threads: Compute threads.
        dtype: Of the suite: the model's weights have it, and autocast is entered where it asks for it.

    Raises:
        ProcessEndedError: The model ended the process.
        Exception: Whatever building or running the model raises.
    """
    return processes.run(_growth_mib, build, threads, dtype)


def _growth_mib(build: Build, threads: int, dtype: Dtype) -> float:
    torch.set_num_threads(threads)
    before = _peak_bytes()
    forward, images = build()
    with torch.inference_mode(), mixed_precision(dtype, images.device):
        forward(images)
    return (_peak_bytes() - before) / MIB


def _peak_bytes() -> int:
    """The peak resident memory of this process since its start."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
