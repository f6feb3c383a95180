"""The records of a run whose measurements are made on other machines: one process writes them, the others send them.

This module needs nothing but the store, so that the process that writes starts quickly and stays small.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tokbench.results.store import Store

Place = tuple[str, str]
"""A record's kind and key."""


class Keeper:
    """The one that writes; a Ray actor."""

    def __init__(self, directory: Path, remarks: Collection[str]) -> None:
        """Open a directory.

        Args:
            directory: Where the comparison lives.
            remarks: Kinds of records that are no measurements: everybody sees them, and they may come again.
        """
        self._store = Store(directory)
        self._remarks = remarks
        self._in_vain = 0

    def known(self, places: Collection[Place]) -> dict[Place, dict[str, Any]]:
        """The records there are of these, and all remarks."""
        remarks = {place: record for place, record in self._store.all().items() if place[0] in self._remarks}
        return remarks | {place: record for place in places if (record := self._store.get(*place)) is not None}

    def add(self, place: Place, record: Mapping[str, Any]) -> None:
        """Write a record if there is none; when this returns, it is on the disk."""
        if place[0] in self._remarks or self._store.get(*place) is None:
            self._store.add(*place, record)
        else:
            self._in_vain += 1

    def in_vain(self) -> int:
        """How many measurements came though they were there, and were not written."""
        return self._in_vain


class Kept(Store):
    """What another process sees of the store: records as they were when it began, and what it adds."""

    def __init__(self, keeper: Any, places: Collection[Place]) -> None:
        """Ask what there is.

        Args:
            keeper: A handle of the actor.
            places: What may be asked for and added; see `Keeper.known` for what is there besides.
        """
        self._keeper = keeper
        self._records = _answer(keeper.known.remote(places))

    def add_all(self, records: Mapping[Place, Mapping[str, Any]]) -> None:
        """Send measurements; when this returns, they are on the disk."""
        for sent in [self._keeper.add.remote(place, dict(record)) for place, record in records.items()]:
            _answer(sent)
        self._records |= {place: dict(record) for place, record in records.items()}


def _answer(sent: Any) -> Any:
    """What the keeper answers. In `ray.get` a task would lend its cores to the next task while it waits."""
    return sent.future().result()
