"""Multiply-accumulates of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tokbench.kinds.base import Column, Conditions, Kind, Pace
from tokbench.names import TIMES

if TYPE_CHECKING:
    from torch import Tensor

    from tokbench.results import PlannedRow, Results
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row

TRACE_SECONDS = 0.5  # building a model with a method in it, and tracing it once


@dataclass(frozen=True)
class BatchCount:
    """The counts of one batch of an adaptive method, per image."""

    total: int
    method: int
    ledger: dict[str, Any]


@dataclass(frozen=True)
class MacsRecord:
    """Counts per image.

    Attributes:
        total: All multiply-accumulates.
        method: Those of the method itself.
        tokens: Patch tokens that leave each block.
        total_lo: 5 % quantile over batches; of adaptive methods.
        total_hi: 95 % quantile over batches; of adaptive methods.
        batches: The counts of each batch; of adaptive methods.
    """

    total: int
    method: int
    tokens: tuple[int, ...]
    total_lo: int | None = None
    total_hi: int | None = None
    batches: tuple[BatchCount, ...] = ()


class Macs(Kind[MacsRecord]):
    """Multiply-accumulates of one image, counted on the first image, or on several batches for adaptive methods."""

    name = "macs"
    record = MacsRecord
    exact = True
    live_columns = ("gmacs",)
    columns = (
        Column("tokens_per_block", "string"),
        Column("gmacs", heading="GMACs", exact=True, dropped=2),
        Column("gmacs_lo"),
        Column("gmacs_hi"),
        Column("gmacs_saved", heading="saved", unit="%", step=0.1, only_methods=True, dropped=3),
        Column("gmacs_method", heading="method", unit="%", step=0.1, share_of="gmacs", only_methods=True, dropped=6),
        Column("ideal_speedup", heading="ideal", unit=TIMES, exact=True, only_methods=True, dropped=5),
    )

    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        """The method; for adaptive ones also the images and the device, whose arithmetic decides what is kept."""
        if not conditions.adaptive:
            return {**conditions.method}
        return {**conditions.method, **conditions.device, "data": conditions.data, "batch": conditions.batch_size}

    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """One trace each."""
        return TRACE_SECONDS * len(rows)

    def measure(self, rows: Mapping[str, Row], bench: Bench) -> None:
        """Count every row on images that are decoded once."""
        for alike in bench.same_images(rows):
            images = bench.sample_images(alike.values())
            for key, row in bench.each(self, alike):
                bench.attempt(self, key, partial(self._count, row, images, bench))

    def _count(self, row: Row, images: Tensor, bench: Bench) -> MacsRecord:
        from tokbench.measure.macs import count_macs, spread_of_macs

        model = bench.build(row)
        macs = count_macs(model, images[:1])
        if not row.cell.variant.adaptive:
            return MacsRecord(macs.total, macs.method, macs.ledger.leaving)
        # Above, the two counters were checked against each other; the amount differs from batch to batch.
        spread = spread_of_macs(model, bench.batches(row, images))
        batches = tuple(BatchCount(one.total, one.method, asdict(one.ledger)) for one in spread.batches)
        return MacsRecord(spread.total, spread.method, spread.tokens, spread.total_lo, spread.total_hi, batches)

    def fill(self, row: PlannedRow, plain: PlannedRow | None, results: Results) -> dict[str, Any]:
        """Compute per image, what is saved of the plain model's, and the speedup if time were as the MACs."""
        counted = results.record(self, row)
        if counted is None:
            return {}
        base = None if plain is None else results.record(self, plain)
        return {
            "tokens_per_block": " ".join(map(str, counted.tokens)),
            "gmacs": counted.total / 1e9,
            "gmacs_lo": None if counted.total_lo is None else counted.total_lo / 1e9,
            "gmacs_hi": None if counted.total_hi is None else counted.total_hi / 1e9,
            "gmacs_method": counted.method / 1e9,
            "gmacs_saved": None if base is None else 100 * (1 - counted.total / base.total),
            "ideal_speedup": None if base is None else base.total / counted.total,
        }

    def remarks(self, row: PlannedRow, results: Results) -> list[str]:
        """Adaptive methods need real images."""
        if row.adaptive and results.plan.images is None:
            return ["adaptive method measured on random input: name images with --data"]
        return []

    def live(self, records: Sequence[MacsRecord]) -> dict[str, float]:
        """GMACs."""
        return {"gmacs": records[-1].total / 1e9} if records else {}
