"""The allocator settings used during an accuracy pass."""

import multiprocessing
import platform
import resource
from concurrent.futures import ProcessPoolExecutor

import psutil
import pytest
import torch

from tokbench.measure.allocator import keep_freed_memory

PAGES = 64 * 2**20 // resource.getpagesize()

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's allocator")


def write_and_free(times: int) -> int:
    """Page faults while filling and freeing 64 MiB `times` times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.zeros(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def measure_both() -> tuple[int, int, int]:
    """Page faults of five fillings without and with the setting, and the bytes returned to the system at the end."""
    outside = write_and_free(5)
    with keep_freed_memory():
        write_and_free(20)  # small objects lie between the first blocks: the heap grows until both fit
        inside = write_and_free(5)
        held = psutil.Process().memory_info().rss
    return outside, inside, held - psutil.Process().memory_info().rss


def test_freed_memory_is_reused_and_returned_at_the_end() -> None:
    # In a new process, because the heap that other tests left behind affects the number of page faults.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        outside, inside, returned = fresh.submit(measure_both).result()
    assert outside > PAGES
    assert inside < PAGES / 10
    assert returned > 60 * 2**20
