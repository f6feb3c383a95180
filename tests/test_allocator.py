"""What a CPU's memory does during an accuracy pass."""

import platform
import resource

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


def test_freed_memory_is_used_again_and_given_back_in_the_end() -> None:
    outside = write_and_free(5)
    with freed_memory_kept():
        write_and_free(3)  # the heap grows
        inside = write_and_free(5)
        held = psutil.Process().memory_info().rss
    assert inside < PAGES / 10
    assert outside > PAGES
    assert held - psutil.Process().memory_info().rss > 60 * 2**20
