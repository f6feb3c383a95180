"""One process at a time writes to a results directory."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tokbench.errors import UnwritableError
from tokbench.files import OTHER_FOLDER, writing

LOCK = ".lock"
WAIT = 5.0  # seconds for a process that was just killed to be gone
LOOK = 0.05  # seconds between two attempts


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory's lock, and create the directory where it is missing.

    The system releases the lock when the process ends, however it ends. On a file system without locks, nothing is
    locked.

    Args:
        directory: A results directory.

    Raises:
        UnwritableError: Another process holds it, or the directory cannot be written.
    """
    with writing(directory, OTHER_FOLDER):
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / LOCK).open("a+", encoding="utf-8")
    with file:
        if sys.platform != "win32":
            _acquire(file, directory)
        with writing(file.name, OTHER_FOLDER):
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            file.flush()
        yield


def _acquire(file: IO[str], directory: Path) -> None:
    import fcntl

    end = time.monotonic() + WAIT
    while True:
        try:
            # Not flock: its locks are inherited, so that a worker process would keep the lock of a killed run.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return
        if time.monotonic() > end:
            owner = _owner(file)
            raise UnwritableError(f"another tokbench writes to {directory} ({owner}): wait for it, or {OTHER_FOLDER}")
        time.sleep(LOOK)


def _owner(file: IO[str]) -> str:
    file.seek(0)
    try:
        owner = json.loads(file.read())
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):  # it is just being written
        return "its process is just starting"
