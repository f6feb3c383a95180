"""glibc's allocator, which serves PyTorch's tensors on a Linux CPU, during a run that frees and allocates a lot."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEEPING = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_MAX: 0}
# Where glibc's own thresholds arrive once a tensor of 32 MiB was freed; they cannot be set to adapt again.
_ADAPTED = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25, _MMAP_MAX: 65536}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep the memory that tensors free for the next tensors, and give it back in the end.

    By itself glibc gives back what a batch's activations leave and asks for it again in the next block, and the system
    clears every page of it anew, more or less often as the heap happens to lie. Kept, the heap grows to some times its
    largest tensor before it is enough. Times are not measured under it, for a user's own model does not run so.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    _set(libc, _KEEPING)
    try:
        yield
    finally:
        _set(libc, _ADAPTED)
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, parameters: dict[int, int]) -> None:
    for parameter, value in parameters.items():
        libc.mallopt(parameter, value)
