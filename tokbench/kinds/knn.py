"""Accuracy of the nearest neighbours: what a model's features are worth, for which the model needs no head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokbench.kinds.accuracy import AccuracyRecord, accuracy_columns
from tokbench.kinds.base import Column, Conditions, Kind, Pace

if TYPE_CHECKING:
    import torch

    from tokbench.results import PlannedRow, Results
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row
    from tokbench.suite import Suite

COLUMNS = {
    "top1": "knn",
    "top1_lo": "knn_lo",
    "top1_hi": "knn_hi",
    "delta_top1": "delta_knn",
    "delta_lo": "delta_knn_lo",
    "delta_hi": "delta_knn_hi",
}
"""The columns of accuracy that this kind has too, and what they are called here."""


class Knn(Kind[AccuracyRecord]):
    """The share of images that their nearest neighbours among the images of `--train` classify correctly."""

    name = "knn"
    record = AccuracyRecord
    on_request = False
    exact = True
    columns = (
        Column("knn", heading="k-NN", unit="%", interval="knn", decimals=1, dropped=2),
        Column("knn_lo"),
        Column("knn_hi"),
        Column(
            "delta_knn",
            heading="Δ k-NN",
            unit="points",
            interval="delta_knn",
            compared=True,
            decimals=1,
            only_methods=True,
            dropped=4,
        ),
        Column("delta_knn_lo"),
        Column("delta_knn_hi"),
    )

    def wanted(self, row: Row, suite: Suite, device: torch.device) -> bool:
        """Where there are images to find neighbours among."""
        return suite.train is not None

    def needs_data(self, suite: Suite) -> tuple[str, str] | None:
        """Always."""
        return ("classify by their nearest neighbours", "leave --train out") if suite.train is not None else None

    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        """What runs, where, on which images, and the seed."""
        return {
            **conditions.method,
            **conditions.device,
            "data": conditions.data,
            "train": conditions.train,
            "batch": conditions.suite.accuracy_batch,
            "seed": conditions.seed,
        }

    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """Every row decodes and runs both sets."""
        return len(rows) * (pace.images + pace.train_images) * (pace.decode_s + pace.image_s)

    def measure_row(self, row: Row, bench: Bench) -> AccuracyRecord:
        """The method reduces the images of both sets."""
        from tokbench.measure.knn import classify_by_neighbours

        data, train = bench.labelled_sets()
        return AccuracyRecord(classify_by_neighbours(bench.build(row), data, train, bench.loading()))

    def fill(self, row: PlannedRow, plain: PlannedRow | None, results: Results) -> dict[str, Any]:
        """Percent and points, as for accuracy."""
        record = results.record(self, row)
        reference = results.plan.reference_of(row)
        base = None if reference is None else results.record(self, reference)
        outcomes, plain_outcomes = (None if one is None else one.outcomes for one in (record, base))
        filled = accuracy_columns(outcomes, plain_outcomes)
        return {COLUMNS[name]: value for name, value in filled.items() if name in COLUMNS}
