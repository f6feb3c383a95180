"""Carrying out a plan: what has no record yet is measured, and each record is on the disk before the next begins."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.kinds import KINDS
from tokbench.results.store import RecordWriter
from tokbench.run.bench import open_bench
from tokbench.run.observer import Observer
from tokbench.run.prepare import Prepared


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
    for name in prepared.models:
        with bench.on_device([name]):
            for kind in KINDS.values():
                if not kind.sharded and (missing := bench.missing(kind, [r for r in rows if r.cell.model == name])):
                    if kind.exclusive:
                        bench.forget_images()
                    kind.measure(missing, bench)
    with bench.on_device(list(prepared.models)):
        for kind in KINDS.values():
            if kind.sharded and (missing := bench.missing(kind, rows)):
                kind.measure(missing, bench)
