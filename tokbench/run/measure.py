"""Carrying out a plan: what has no record yet is measured, and each record is on the disk before the next begins."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tokbench.kinds import KINDS
from tokbench.results.store import RecordWriter
from tokbench.run.bench import Bench, open_bench
from tokbench.run.observer import Observer
from tokbench.run.prepare import Prepared, Row


def measure(
    prepared: Prepared, records: RecordWriter, observer: Observer, wanted: Sequence[range] | None = None
) -> None:
    """Measure everything that is missing.

    Args:
        prepared: What to measure.
        records: Where records go.
        observer: Shows progress.
        wanted: The shards of the image set that accuracies are measured on, in order; None for all.

    Raises:
        UserError: More than 1 % of the images cannot be read, or the cache cannot be written.
    """
    bench = open_bench(prepared, records, observer, wanted)
    rows = prepared.measured_rows
    with _modules_uncollected():
        _measure(bench, rows)


@contextmanager
def _modules_uncollected() -> Iterator[None]:
    """Exclude what has been imported from garbage collection, which would take a quarter of a second per timing."""
    if gc.get_freeze_count():  # somebody did so already
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _measure(bench: Bench, rows: Sequence[Row]) -> None:
    for name in bench.prepared.models:
        with bench.on_device([name]):
            for kind in KINDS.values():
                if not kind.sharded and (missing := bench.missing(kind, [r for r in rows if r.cell.model == name])):
                    if kind.exclusive:
                        bench.forget_images()
                    kind.measure(missing, bench)
    with bench.on_device(list(bench.prepared.models)):
        for kind in KINDS.values():
            if kind.sharded and (missing := bench.missing(kind, rows)):
                kind.measure(missing, bench)
