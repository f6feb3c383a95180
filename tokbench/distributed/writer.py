"""The records of a run on several machines: one process writes them, the others send them to it.

This module needs nothing but the store, so that the process that writes starts quickly and stays small.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tokbench.results.store import Place, Store


class Writer:
    """The process that writes; a Ray actor."""

    def __init__(self, directory: Path, remarks: Collection[str]) -> None:
        """Open a directory.

        Args:
            directory: A results directory.
            remarks: Kinds of records that are no measurements: every worker sees them, and they may come again.
        """
        self._store = Store(directory)
        self._remarks = remarks
        self._duplicates = 0

    def known(self, places: Collection[Place]) -> dict[Place, dict[str, Any]]:
        """Which of these records exist, and all remarks."""
        remarks = {place: record for place, record in self._store.all().items() if place[0] in self._remarks}
        return remarks | {place: record for place in places if (record := self._store.get(*place)) is not None}

    def add(self, place: Place, record: Mapping[str, Any]) -> None:
        """Write a record if there is none; when this returns, it is on the disk."""
        if place[0] in self._remarks or self._store.get(*place) is None:
            self._store.add(*place, record)
        else:
            self._duplicates += 1

    def duplicates(self) -> int:
        """How many measurements came although their records existed, and were not written."""
        return self._duplicates


class RemoteRecords:
    """A worker's view of the records: those that existed when it began, and those it adds."""

    def __init__(self, writer: Any, places: Collection[Place]) -> None:
        """Ask which records exist.

        Args:
            writer: A handle of the actor.
            places: What may be asked for and added; `Writer.known` says what else is there.
        """
        self._writer = writer
        self._records: dict[Place, dict[str, Any]] = _answer(writer.known.remote(places))

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """A record made before, or None."""
        return self._records.get((kind, key))

    def add(self, kind: str, key: str, value: Mapping[str, Any]) -> None:
        """Send a record; when this returns, it is on the disk."""
        place = (kind, key)
        _answer(self._writer.add.remote(place, dict(value)))
        self._records[place] = dict(value)


def _answer(sent: Any) -> Any:
    """What the writer answers. With `ray.get` a task would lend its cores to the next task while it waits."""
    return sent.future().result()
