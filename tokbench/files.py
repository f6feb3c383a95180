"""Atomic file writes: a reader sees the old file or the new one, never a partial one."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tokbench.errors import UnwritableError, UserError

OTHER_FOLDER = "choose another folder with --out DIR"  # what to do about one that cannot be written

_SCRATCH = re.compile(r"\..+\.(\d+)")  # .NAME.PID


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file next to `path`, then move it to `path`.

    Args:
        path: The final path.
        write: Writes the content to the path that it receives.

    Raises:
        UserError: The path is a device, a pipe or a socket, which must not be replaced by a file.
        OSError: As `write` raises it, or the file cannot be moved.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is no regular file: name a file to write")
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(scratch)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def remove_scratch(directory: Path, age: float = 0) -> None:
    """Remove the temporary files of processes that were killed while they wrote.

    Args:
        directory: Where to look.
        age: Seconds; younger files are kept, because a process of another machine may be writing them.
    """
    for path in directory.iterdir():
        found = _SCRATCH.fullmatch(path.name)
        if found and path.is_file() and not _runs(int(found[1])) and time.time() - path.stat().st_mtime >= age:
            path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    """Whether a process of this number runs here."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True


@contextmanager
def writing(path: Path | str, fix: str) -> Iterator[None]:
    """Turn a failure to write a file into a message for the user.

    Args:
        path: The file.
        fix: What the user can do.

    Raises:
        UnwritableError: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise UnwritableError(f"cannot write {path} ({reason}): {fix}") from None
