"""Atomic file writes: a reader sees the old file or the new one, never a partial one."""

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file next to `path`, then move it to `path`.

    Args:
        path: The final path.
        write: Writes the content to the path that it receives.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(scratch)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
