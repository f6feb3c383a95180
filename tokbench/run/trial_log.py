"""The finished trials of a search, one per line: a search that was stopped goes on behind the last of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from tokbench.errors import UserError
from tokbench.files import write_atomically, writing
from tokbench.measure.schedule_search import Trial
from tokbench.results.store import MAKE_ROOM


@dataclass(frozen=True)
class _Line:
    """A trial, its number from 0, and the hash of everything that the search depends on."""

    number: int
    key: str
    trial: Trial


_LINE = TypeAdapter(_Line)


class TrialFile:
    """The trials of one search in a file. The lock of its folder is the caller's business."""

    def __init__(self, path: Path, key: str) -> None:
        """Read what is there.

        A trial depends on all before it. From the first damaged line on, such as a process leaves that is killed while
        it writes, nothing counts, and it is removed.

        Args:
            path: A `.jsonl` file, which need not exist yet.
            key: A hash of everything that the search depends on.

        Raises:
            UserError: The file cannot be read or written.
        """
        self._path = path
        self._key = key
        self._trials: list[Trial] = []
        try:
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise UserError(f"cannot read {path} ({error.strerror}): check its permissions, or remove it") from None
        for line in content.splitlines(keepends=True):
            trial = self._read(line)
            if trial is None:
                break
            self._trials.append(trial)
        whole = b"".join(map(self._line, range(len(self._trials)), self._trials))
        if whole != content:
            with writing(path, MAKE_ROOM):
                write_atomically(path, lambda scratch: scratch.write_bytes(whole))

    @property
    def trials(self) -> Sequence[Trial]:
        """All of them, in order."""
        return self._trials

    def add(self, trial: Trial) -> None:
        """Write a trial; when this returns, it is on the disk.

        Raises:
            UserError: The file cannot be written.
        """
        with writing(self._path, MAKE_ROOM), self._path.open("ab") as file:
            file.write(self._line(len(self._trials), trial))
            file.flush()
            os.fsync(file.fileno())
        self._trials.append(trial)

    def _line(self, number: int, trial: Trial) -> bytes:
        return json.dumps(asdict(_Line(number, self._key, trial)), allow_nan=False).encode() + b"\n"

    def _read(self, line: bytes) -> Trial | None:
        """The next trial; None if this line is not the whole of it."""
        try:
            found = _LINE.validate_json(line)
        except ValueError:
            return None
        expected = line.endswith(b"\n") and found.key == self._key and found.number == len(self._trials)
        return found.trial if expected else None
