"""Writing files so that nobody ever sees half of one."""

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file next to its final place and move it there.

    Args:
        path: The file's place.
        write: Writes the content to the path it is given.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(scratch)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
