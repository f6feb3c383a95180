"""What a CPU's memory does during an accuracy pass."""

import multiprocessing
import platform
import resource
from concurrent.futures import ProcessPoolExecutor

import psutil
import pytest
import torch

from tokbench.measure.allocator import freed_memory_kept

PAGES = 64 * 2**20 // resource.getpagesize()

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")


def write_and_free(times: int) -> int:
    """Fill 64 MiB and free them again, so many times; the page faults of it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.zeros(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def in_turn() -> tuple[int, int, int]:
    """The page faults of five fillings outside and inside, and the bytes given back in the end."""
    outside = write_and_free(5)
    with freed_memory_kept():
        write_and_free(20)  # small objects lie between the first ones: the heap grows until it holds both
        inside = write_and_free(5)
        held = psutil.Process().memory_info().rss
    return outside, inside, held - psutil.Process().memory_info().rss


def test_freed_memory_is_used_again_and_given_back_in_the_end() -> None:
    # In a new process: what other tests have left in this one's heap decides how often it asks the system.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        outside, inside, given_back = fresh.submit(in_turn).result()
    assert outside > PAGES
    assert inside < PAGES / 10
    assert given_back > 60 * 2**20
