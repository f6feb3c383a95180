"""Settings of glibc's allocator, which provides the memory of PyTorch's CPU tensors on Linux."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER_RETURN = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_MAX: 0}
# The values that glibc's adaptive thresholds reach once a tensor of 32 MiB has been freed. Setting a threshold disables
# its adaptation for good, so these are restored instead.
_ADAPTED = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25, _MMAP_MAX: 65536}


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep freed memory in the process for the next tensors, and return it to the system at the end.

    By default glibc returns the memory of a batch's activations to the system and requests it again in the next block,
    and the system clears every page each time; how often depends on the layout of the heap. With freed memory kept, the
    heap grows to a few times its largest tensor before it suffices. Times are not measured under this setting, because
    a user's own model does not run with it.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    _set(libc, _NEVER_RETURN)
    try:
        yield
    finally:
        _set(libc, _ADAPTED)
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, parameters: dict[int, int]) -> None:
    for parameter, value in parameters.items():
        libc.mallopt(parameter, value)
