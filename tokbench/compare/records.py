"""What a run writes: a measurement, or why there is none."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rich.progress import Progress

from tokbench.compare.prepare import Row
from tokbench.errors import UserError
from tokbench.results.store import Store

# Kinds of records beside the measurements' own.
FAILED = "failed"  # why a measurement is missing
LOST_IMAGE = "unreadable"  # why an image could not be read
NOISE = "noise"  # the plain model against itself, in one session


def missing(rows: Iterable[Row], kind: str, store: Store) -> dict[str, Row]:
    """One row for each measurement of a kind that has no record, by its key."""
    wanted = {row.keys[kind]: row for row in rows if kind in row.keys}
    return {key: row for key, row in wanted.items() if store.get(kind, key) is None}


def announced(rows: Mapping[str, Row], kind: str, progress: Progress) -> Iterator[tuple[str, Row]]:
    """Go through the measurements of a kind, and tell the progress of each before it is made.

    Args:
        rows: By the measurements' keys.
        kind: Of the measurements.
        progress: Its task has the fields `kind` and `key`. It is refreshed between measurements, never in one.
    """
    if not rows:
        return
    task = progress.add_task(kind, total=len(rows), kind=kind)
    for key, row in rows.items():
        progress.update(task, key=key, refresh=True)
        yield key, row
        progress.advance(task)
    progress.update(task, key=None, refresh=True)


def attempt(kind: str, key: str, store: Store, measure: Callable[[], dict[str, Any]]) -> bool:
    """Record a measurement, or why there is none: a method that fails costs its own rows only.

    Returns:
        Whether there is one.

    Raises:
        UserError: As the measurement raises it.
    """
    try:
        value = measure()
    except UserError:
        raise
    except Exception as error:
        store.add(FAILED, f"{kind}/{key}", {"reason": _reason(error)})
        return False
    store.add(kind, key, value)
    return True


def _reason(error: Exception) -> str:
    """One line: what was raised, and where."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = "" if "site-packages" in where.filename else f" ({where.filename.rpartition('/')[2]}:{where.lineno})"
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0]}{place}"
