"""Keeping standard output for what tokbench prints: with `--json`, nothing else may be there."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress

HIGH = 900  # systems allow 1,024 open files or more


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send to standard error what Python and C code write to standard output within the block.

    Where the process has no standard output or standard error, only Python's own is sent on.
    """
    with redirect_stdout(sys.stderr):
        saved = _descriptor_replaced()
        try:
            yield
        finally:
            if saved is not None:
                _flush()
                with suppress(OSError):  # code within the block may have closed the copy
                    os.dup2(saved, 1)
                    os.close(saved)


def _descriptor_replaced() -> int | None:
    """Point file descriptor 1 to 2; returns a copy of the former 1."""
    try:
        saved = _copy_of_stdout()
    except OSError:
        return None
    _flush()
    try:
        os.dup2(2, 1)
    except OSError:
        os.close(saved)
        return None
    return saved


def _copy_of_stdout() -> int:
    """A copy with a high number, out of the way of code that closes all low ones."""
    if sys.platform != "win32":
        import fcntl

        with suppress(OSError):  # fewer files may be open at once
            return fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, HIGH)
    return os.dup(1)


def _flush() -> None:
    """Write what Python and C code have printed and still hold in their buffers."""
    if sys.__stdout__ is not None and not sys.__stdout__.closed:
        sys.__stdout__.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
