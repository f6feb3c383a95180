"""A comparison's directory: the plan, the measurements as they come in, and the table.

Every measurement is one line of `records.jsonl`, flushed to disk before the next begins, under the hash of all that it
depends on. Running a comparison again does what has no line yet.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokbench.errors import UserError
from tokbench.files import write_atomically

SCHEMA = 2

PLAN = "plan.json"
RECORDS = "records.jsonl"
ENVIRONMENT = "environment.json"


def identity(parts: Mapping[str, Any]) -> str:
    """A hash of everything that a measurement depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


class Records:
    """The measurements of one directory, to be read."""

    def __init__(self, directory: Path) -> None:
        """Read what there is, and change nothing.

        Args:
            directory: Where the comparison lives.

        Raises:
            UserError: It was written by another version of the format, or is damaged.
        """
        self.directory = directory
        self._path = directory / RECORDS
        self._records: dict[tuple[str, str], dict[str, Any]] = {}
        self._read = 0  # bytes of the file
        self._check_format()
        self.refresh()

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """A measurement made before, or None."""
        return self._records.get((kind, key))

    def all(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Every measurement, by its kind and key."""
        return dict(self._records)

    def refresh(self) -> None:
        """Take in what another process has written since.

        Raises:
            UserError: The directory is damaged.
        """
        content = b""
        if self._path.is_file():
            with self._path.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        # What stands behind the last line's end is of a writer that was killed, or still writes.
        whole = content[: content.rfind(b"\n") + 1]
        try:
            records = [json.loads(line) for line in whole.splitlines()]
            self._records |= {(record["kind"], record["key"]): record["value"] for record in records}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._path} is damaged ({error}): measure anew with --fresh") from None
        self._read += len(whole)

    def _check_format(self) -> None:
        plan = self.directory / PLAN
        if plan.is_file():
            schema = json.loads(plan.read_text(encoding="utf-8")).get("schema")
            if schema != SCHEMA:
                raise UserError(
                    f"{self.directory} has results of format {schema}, this tokbench writes {SCHEMA}: "
                    "choose another folder with --out DIR, or measure anew with --fresh"
                )


class Store(Records):
    """The measurements of one directory, to be added to."""

    def __init__(self, directory: Path, *, fresh: bool = False) -> None:
        """Open a directory, and make it where it is missing.

        Args:
            directory: Where the comparison lives.
            fresh: Forget what was measured before.

        Raises:
            UserError: The directory cannot be written, was written by another version of the format, or is damaged.
        """
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
        """Write a measurement; when this returns, it is on the disk."""
        self.add_all({(kind, key): value})

    def add_all(self, records: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
        """Write measurements, by their kinds and keys; when this returns, they are on the disk."""
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

    def write_json(self, name: str, content: Any) -> None:
        """Write one of the directory's JSON files, whole or not at all."""
        text = json.dumps({"schema": SCHEMA, **content}, indent=2, default=str) + "\n"
        write_atomically(self.directory / name, lambda path: path.write_text(text, encoding="utf-8"))
