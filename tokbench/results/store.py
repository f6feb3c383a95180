"""`records.jsonl`: the measurements of a directory, one per line.

Each is flushed to disk before the next begins, under a hash of everything it depends on. Running a comparison again
measures what has no line yet.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tokbench.errors import UserError
from tokbench.files import write_atomically

RECORDS = "records.jsonl"

# Records that are no measurements.
FAILED = "failed"  # why a measurement is missing; the key is <kind>/<key>
UNREADABLE_IMAGE = "unreadable"  # why an image could not be decoded; the key is <image set>/<image>

Place = tuple[str, str]
"""A record's kind and key."""


class RecordWriter(Protocol):
    """Where a run looks for records and puts new ones: a directory, or a process that writes to one."""

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """A record made before, or None."""

    def add(self, kind: str, key: str, value: Mapping[str, Any]) -> None:
        """Write a record; when this returns, it is on the disk."""


class Records:
    """The records of one directory, to be read."""

    def __init__(self, directory: Path) -> None:
        """Read what is there, and change nothing.

        Args:
            directory: A results directory.

        Raises:
            UserError: The file is damaged.
        """
        self._path = directory / RECORDS
        self._records: dict[Place, dict[str, Any]] = {}
        self._read = 0  # bytes of the file
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
            UserError: The file is damaged.
        """
        content = b""
        if self._path.is_file():
            with self._path.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        # Behind the last line's end is what a writer that was killed, or still writes, has begun.
        whole = content[: content.rfind(b"\n") + 1]
        try:
            records = [json.loads(line) for line in whole.splitlines()]
            self._records |= {(record["kind"], record["key"]): record["value"] for record in records}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._path} is damaged ({error}): measure again with --fresh") from None
        self._read += len(whole)


class Store(Records):
    """The records of one directory, to be added to."""

    def __init__(self, directory: Path, *, fresh: bool = False) -> None:
        """Open a directory, and create it where it is missing.

        Args:
            directory: A results directory.
            fresh: Discard what was measured before.

        Raises:
            UserError: The directory cannot be written, or its records are damaged.
        """
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if fresh:
                (directory / RECORDS).unlink(missing_ok=True)
            with (directory / RECORDS).open("ab"):
                pass
        except OSError as error:
            raise UserError(
                f"cannot write results to {directory} ({error.strerror}): choose another folder with --out DIR"
            ) from None
        super().__init__(directory)
        content = self._path.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]
        if len(complete) < len(content):
            # The last writer was killed in the middle of a line.
            write_atomically(self._path, lambda path: path.write_bytes(complete))

    def add(self, kind: str, key: str, value: Mapping[str, Any]) -> None:
        """Write a record; when this returns, it is on the disk."""
        self.add_all({(kind, key): value})

    def add_all(self, records: Mapping[Place, Mapping[str, Any]]) -> None:
        """Write records, by their kinds and keys; when this returns, they are on the disk."""
        added = {place: dict(value) for place, value in records.items()}
        lines = [
            json.dumps({"kind": kind, "key": key, "value": value}, allow_nan=False) + "\n"
            for (kind, key), value in added.items()
        ]
        with self._path.open("ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())
        self._records |= added


def write_json(file: Path, content: Any) -> None:
    """Write one of a directory's JSON files, completely or not at all."""
    text = json.dumps(content, indent=2, default=str) + "\n"
    write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))
