"""`records.jsonl`: the measurements of a directory, one per line.

Each is flushed to disk before the next begins, under a hash of everything it depends on. Running a comparison again
measures what has no line yet. A line ends with a checksum of its content; where that does not match, the line counts as
missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from tokbench.errors import UserError
from tokbench.files import OTHER_FOLDER, remove_scratch, write_atomically, writing

RECORDS = "records.jsonl"

# Records that are no measurements.
FAILED = "failed"  # why a measurement is missing; the key is <kind>/<key>
UNREADABLE_IMAGE = "unreadable"  # why an image could not be decoded; the key is <image set>/<image>

# In a record of FAILED.
ENDED = "ended"  # the measurement has ended its process
SKIPPED = "skipped"  # the model cannot be measured in this way, which is no failure

MAKE_ROOM = "make room or check its permissions, then run the same command again"

Place = tuple[str, str]
"""A record's kind and key."""


class RecordWriter(Protocol):
    """Where a run looks for records and puts new ones: a directory, or a process that writes to one."""

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """A record made before, or None."""

    def add(self, kind: str, key: str, value: Mapping[str, Any]) -> None:
        """Write a record; when this returns, it is on the disk."""


class Records:
    """The records of one directory, to be read.

    Attributes:
        damaged: How many lines were left out, because they are no records or their checksum does not match.
    """

    def __init__(self, directory: Path) -> None:
        """Read what is there, and change nothing.

        Args:
            directory: A results directory.

        Raises:
            UserError: The file cannot be read.
        """
        self._path = directory / RECORDS
        self._records: dict[Place, dict[str, Any]] = {}
        self._read = 0  # bytes of the file
        self._have_sums = False
        self.damaged = 0
        self.refresh()

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """A record made before, or None."""
        return self._records.get((kind, key))

    def all(self) -> dict[Place, dict[str, Any]]:
        """Every record, by its kind and key."""
        return dict(self._records)

    def refresh(self) -> None:
        """Read what another process has written since.

        Raises:
            UserError: The file cannot be read.
        """
        content = b""
        if self._path.is_file():
            try:
                with self._path.open("rb") as file:
                    file.seek(self._read)
                    content = file.read()
            except OSError as error:
                raise UserError(f"cannot read {self._path} ({error.strerror}): check its permissions") from None
        elif self._path.exists():
            raise UserError(f"{self._path} is no regular file: move it away, then run tokbench compare again")
        # Behind the last line's end is what a writer that was killed, or still writes, has begun.
        whole = content[: content.rfind(b"\n") + 1]
        lines = [_parse(line) for line in whole.split(b"\n")[:-1]]
        # Files of older versions have no checksums.
        self._have_sums |= any(line is not None and SUM in line for line in lines)
        for line in lines:
            if line is None or not _is_sound(line, must_have_sum=self._have_sums):
                self.damaged += 1
            else:
                self._records[line["kind"], line["key"]] = line["value"]
        self._read += len(whole)


class Store(Records):
    """The records of one directory, to be added to."""

    def __init__(self, directory: Path, *, fresh: bool = False) -> None:
        """Open a directory, and create it where it is missing; its lock is the caller's business.

        Args:
            directory: A results directory.
            fresh: Start without the records of before; they are moved aside.

        Raises:
            UserError: The directory cannot be written.
        """
        self.directory = directory
        self.moved_to: Path | None = None
        with writing(directory, OTHER_FOLDER):
            directory.mkdir(parents=True, exist_ok=True)
            remove_scratch(directory)
            if fresh and os.path.lexists(directory / RECORDS):  # a link to nothing, too
                self.moved_to = _free_name(directory)
                (directory / RECORDS).rename(self.moved_to)
        super().__init__(directory)
        with writing(self._path, MAKE_ROOM):
            with self._path.open("ab") as file:
                size = file.tell()
            # A writer was killed in the middle of a line, lines are damaged, or they have no checksums yet.
            if size != self._read or self.damaged or (self._records and not self._have_sums):
                text = _lines(self._records.items())
                write_atomically(self._path, lambda path: path.write_bytes(text))
                self._read = len(text)

    def forget_ended(self) -> None:
        """Forget which measurements have ended their process, so that they are tried again."""
        places = [place for place, value in self._records.items() if place[0] == FAILED and value.get(ENDED)]
        self.add_all({place: {} for place in places})

    def add(self, kind: str, key: str, value: Mapping[str, Any]) -> None:
        """Write a record; when this returns, it is on the disk."""
        self.add_all({(kind, key): value})

    def add_all(self, records: Mapping[Place, Mapping[str, Any]]) -> None:
        """Write records, by their kinds and keys; when this returns, they are on the disk.

        Raises:
            UserError: The file cannot be written.
        """
        added = {place: dict(value) for place, value in records.items()}
        with writing(self._path, MAKE_ROOM), self._path.open("ab") as file:
            file.write(_lines(added.items()))
            file.flush()
            os.fsync(file.fileno())
        self._records |= added


SUM = "sum"
SUM_LENGTH = 12  # hexadecimal digits


def _lines(records: Iterable[tuple[Place, Mapping[str, Any]]]) -> bytes:
    lines = []
    for (kind, key), value in records:
        line = {"kind": kind, "key": key, "value": value}
        lines.append(json.dumps({**line, SUM: _checksum(line)}, allow_nan=False) + "\n")
    return "".join(lines).encode()


def _parse(line: bytes) -> dict[str, Any] | None:
    """A line's content; None where it is no record."""
    try:
        content = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not content.keys() <= {"kind", "key", "value", SUM}:
        return None
    whole = all(isinstance(content.get(name), str) for name in ("kind", "key"))
    return content if whole and isinstance(content.get("value"), dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _is_sound(line: Mapping[str, Any], *, must_have_sum: bool) -> bool:
    if SUM not in line:
        return not must_have_sum
    return bool(line[SUM] == _checksum({name: line[name] for name in ("kind", "key", "value")}))


def _checksum(line: Mapping[str, Any]) -> str:
    # Of the content, not of its text: numbers are written so that reading them gives the same ones.
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()[:SUM_LENGTH]


def _free_name(directory: Path) -> Path:
    names = (directory / f"records.{number}.jsonl" for number in count(1))
    return next(name for name in names if not os.path.lexists(name))


def write_json(file: Path, content: Any) -> None:
    """Write one of a directory's JSON files, completely or not at all.

    Raises:
        UserError: It cannot be written.
    """
    text = json.dumps(content, indent=2, default=str, allow_nan=False) + "\n"
    with writing(file, MAKE_ROOM):
        write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))
