"""Several processes on this machine, one thread each, for what needs no quiet machine: MACs and answers.

With two threads a small model is evaluated less than 1.5 times as fast as with one, and counting MACs takes one thread
anyway, so that processes finish sooner. They are copies of this one (`fork`), which need not import or load anything.
Records are written by this process only. What a copy does not finish, for whatever reason, is measured afterwards as
in a run without copies.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any

import torch

from tokbench.distributed.parts import Part, divide
from tokbench.errors import UserError
from tokbench.isolation import watched_through
from tokbench.results.store import FAILED, UNREADABLE_IMAGE, Store
from tokbench.run.measure import measure
from tokbench.run.observer import Observer, Silent
from tokbench.run.prepare import Prepared
from tokbench.run.unreadable import LostImages

PIECES = 4  # parts of the accuracies per process: few wait long for the last ones
REMARKS = (FAILED, UNREADABLE_IMAGE)  # records that are no measurements, and may come from several processes


def measure_in_processes(prepared: Prepared, store: Store, observer: Observer) -> None:
    """Measure what can be measured side by side, where that is of use and safe.

    It is on Linux, on its CPU, where images are decoded in the processes that read them, and where all methods are
    tokbench's own: a method of somebody else's may do anything, which is for `measure` to contain.

    Args:
        prepared: What to measure.
        store: Where records go.
        observer: Shows progress.

    Raises:
        UserError: More than 1 % of the images cannot be read.
    """
    processes = torch.get_num_threads()
    own_methods_only = prepared.surroundings is None
    can_fork = sys.platform == "linux" and prepared.device.type == "cpu" and prepared.suite.workers == 0
    if not can_fork or not own_methods_only or processes == 1:
        return
    parts = [part for part in divide(prepared, store, PIECES * processes) if not part.exclusive]
    if len(parts) < 2:  # nothing to share
        return
    for kind, total in Counter(kind for part in parts for kind, _ in part.places()).items():
        observer.planned(kind, total)
    # The parts with most to do come first, so that no process works alone at the end for long.
    waiting = sorted(parts, key=lambda part: len(part.rows) * sum(map(len, part.shards)), reverse=True)
    with _copies(prepared, store, waiting, processes) as connections:
        todo = iter(range(len(waiting)))
        while connections:
            for connection in wait(connections):
                assert isinstance(connection, Connection)
                try:
                    place, record = connection.recv()
                    if place is None:
                        connection.send(next(todo, None))
                        continue
                except (EOFError, ConnectionError):  # the copy has ended
                    connections.remove(connection)
                    continue
                kind, key = place
                if kind in REMARKS or store.get(kind, key) is None:
                    store.add(kind, key, record)
                    observer.measured(kind)
    if prepared.images is not None:
        LostImages(prepared.images, store).check()  # each part alone may have lost few


@contextmanager
def _copies(
    prepared: Prepared, store: Store, parts: Sequence[Part], processes: int
) -> Iterator[list[Connection[Any, Any]]]:
    """Copies of this process that work, and what they are asked and answer through."""
    context = multiprocessing.get_context("fork")
    started: list[ForkProcess] = []
    connections = []
    try:
        for _ in range(min(processes, len(parts))):
            here, there = context.Pipe()
            copy = context.Process(target=_work, args=(prepared, store, parts, there))
            copy.start()
            there.close()  # so that the end of the copy is the end of the pipe
            started.append(copy)
            connections.append(here)
        yield connections
    finally:
        for copy in started:
            copy.terminate()
            copy.join()


def _work(prepared: Prepared, store: Store, parts: Sequence[Part], connection: Connection[Any, Any]) -> None:
    """What a copy does."""
    watched_through(os.open(os.devnull, os.O_WRONLY), {}, {})  # the supervisor watches the original only
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to copies too; the original ends them
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A trace notes the Python stack at every operator, and in a thread that begins here it is short.
    worker = threading.Thread(target=_work_through, args=(prepared, store, parts, connection), daemon=True)
    worker.start()
    worker.join()


def _work_through(prepared: Prepared, store: Store, parts: Sequence[Part], connection: Connection[Any, Any]) -> None:
    """Ask for a part, measure it, and so on."""
    torch.set_num_threads(1)  # the threads of the original do not exist here
    records = _SentRecords(store, connection)
    # What a user can fix happens again in the original, which reports it; where the original is gone, nobody asks.
    with suppress(UserError, EOFError, ConnectionError):
        while (number := records.ask()) is not None:
            part = parts[number]
            measure(part.of(prepared), records, Silent(), part.shards)


class _SentRecords:
    """The records of the original as they were when the copy began, and those that the copy sends to it."""

    def __init__(self, store: Store, connection: Connection[Any, Any]) -> None:
        self._store = store
        self._connection = connection
        self._added: dict[tuple[str, str], dict[str, Any]] = {}

    def ask(self) -> int | None:
        """The number of the next part; None where there is none left."""
        self._connection.send((None, None))
        number: int | None = self._connection.recv()
        return number

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """A record made before, or None."""
        return self._added.get((kind, key)) or self._store.get(kind, key)

    def add(self, kind: str, key: str, value: Mapping[str, Any]) -> None:
        """Send a record to the original, which writes it."""
        self._added[kind, key] = dict(value)
        self._connection.send(((kind, key), dict(value)))
