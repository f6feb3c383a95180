"""Accuracy: how each image of a set came out, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tokbench.kinds.answers import AnswerKind
from tokbench.kinds.base import Column
from tokbench.kinds.pixels import PIXEL_COLUMNS, over_pixels
from tokbench.kinds.training_gain import GAIN_COLUMNS, gain_columns
from tokbench.names import FINE_TUNED, PLAIN
from tokbench.outcomes import RIGHT, UNREADABLE, WRONG, marks_of
from tokbench.rows import ANSWER, columns_without
from tokbench.stats.pareto import best_at_equal_cost, pareto_front
from tokbench.stats.proportions import mcnemar, surely_better, tango, wilson

if TYPE_CHECKING:
    from tokbench.measure.answers import Answers
    from tokbench.results import PlannedRow, Results
    from tokbench.suite import Suite


@dataclass(frozen=True)
class AccuracyRecord:
    """One character for each image, of a shard or of the set; see `tokbench.outcomes`."""

    outcomes: str


class Accuracy(AnswerKind[AccuracyRecord]):
    """Top-1 and top-5, and the paired difference from the plain model on the same images."""

    name = "accuracy"
    record = AccuracyRecord
    exact = True
    needs_labels = True
    compares_classes = True
    live_columns = ("top1",)
    columns = (
        Column("top1", heading="top-1", unit="%", interval="top1", spread="top1_sd", decimals=1, dropped=1),
        Column("top5", heading="top-5", unit="%", decimals=1, dropped=6),
        Column("images", "Int64"),
        Column("top1_lo"),
        Column("top1_hi"),
        Column(
            "delta_top1",
            heading="Δ top-1",
            unit="points",
            interval="delta",
            compared=True,
            decimals=1,
            only_methods=True,
            dropped=1,
        ),
        Column("delta_lo"),
        Column("delta_hi"),
        Column("pareto", "bool", heading="★"),
        Column("gained", "Int64"),
        Column("lost", "Int64"),
        Column("mcnemar_p"),
        Column("top1_sd"),
        Column("pareto_time", "bool", heading="★ by time"),
        Column("best_at_compute", "bool", heading="best at equal compute"),
        *PIXEL_COLUMNS,
        *GAIN_COLUMNS,
    )

    def needs_data(self, suite: Suite) -> tuple[str, str] | None:
        """Always."""
        wanted = self.name in suite.only
        return ("measure accuracy on", "leave accuracy out with --only macs,latency") if wanted else None

    def record_of(self, answers: Answers) -> AccuracyRecord:
        """How the images came out."""
        return AccuracyRecord(answers.outcomes)

    def fill(self, row: PlannedRow, plain: PlannedRow | None, results: Results) -> dict[str, Any]:
        """Percent and points; images that could not be read count nowhere."""
        reference = results.plan.reference_of(row)
        base = None if reference is None else results.outcomes(reference)
        return {**accuracy_columns(results.outcomes(row), base), **gain_columns(row, results)}

    def remarks(self, row: PlannedRow, results: Results) -> list[str]:
        """What a fine-tuned row is compared with, where that is not a plain model that was fine-tuned the same way."""
        reference = results.plan.reference_of(row)
        same_way = reference is not None and reference.training is not None
        if row.training is None or row.id.method == PLAIN or same_way or self.name not in row.keys:
            return []
        return ["no plain model fine-tuned the same way is compared: Δ is against the plain model before training"]

    def complete(self, table: pd.DataFrame, results: Results) -> pd.DataFrame:
        """The spread over seeds, what no other row beats, and the comparison with fewer pixels."""
        outcomes = [results.outcomes(row) for row in results.plan.rows]
        compared = {**unbeaten(table, outcomes), **over_pixels(table, outcomes)}
        return table.assign(top1_sd=seeds_spread(table), **compared)

    def live(self, records: Sequence[AccuracyRecord]) -> dict[str, float]:
        """Top-1 of the images so far."""
        text = "".join(record.outcomes for record in records)
        seen = len(text) - text.count(UNREADABLE)
        return {"top1": 100 * text.count(RIGHT) / seen} if seen else {}

    def tables(self, results: Results) -> dict[str, pd.DataFrame]:
        """Every image's answer by every row."""
        return {} if results.images is None else {"correctness.parquet": correctness(results)}


ACCURACY = Accuracy()


def accuracy_columns(outcomes: str | None, plain: str | None) -> dict[str, Any]:
    """The columns of one row, from its outcomes and the plain model's on the same images."""
    marks = marks_of(outcomes or "")
    read = marks != UNREADABLE
    if not read.any():
        return {}
    right, images = int(np.sum(marks == RIGHT)), int(np.sum(read))
    top1 = wilson(right, images)
    filled: dict[str, Any] = {
        "top1": 100 * top1.estimate,
        "top5": 100 * float(np.mean(marks[read] != WRONG)),
        "images": images,
        "top1_lo": 100 * top1.lo,
        "top1_hi": 100 * top1.hi,
    }
    if plain is None:
        return filled
    before = marks_of(plain)
    both = read & (before != UNREADABLE)
    if both.any():
        flips = mcnemar(before[both] == RIGHT, marks[both] == RIGHT)
        change = tango(flips.gained, flips.lost, int(np.sum(both)))
        filled |= {"delta_top1": 100 * change.estimate, "delta_lo": 100 * change.lo, "delta_hi": 100 * change.hi}
        filled |= {"gained": flips.gained, "lost": flips.lost, "mcnemar_p": flips.p}
    return filled


def seeds_spread(table: pd.DataFrame) -> pd.Series:
    """The sample standard deviation of top-1 over the seeds of a setting, in points, on each of their rows.

    It is missing where a setting has one seed.
    """
    return table.groupby(columns_without("seed"), sort=False, dropna=False)["top1"].transform("std")


def unbeaten(table: pd.DataFrame, outcomes: Sequence[str | None]) -> dict[str, pd.Series]:
    """Which rows no other row of their model surely beats in top-1: of those that cost no more, and of equal cost.

    A row is surely better where the paired 95 % interval of the difference in top-1 (Tango's) lies above zero. With
    several seeds, each seed must be better than each seed of the other. Costs are equal to within `EQUAL_COST`. A row
    without cost or without accuracy is not marked and beats none. Fine-tuned rows are compared with one another only,
    and so are the others.

    Args:
        table: The rows of a comparison.
        outcomes: Each row's outcomes, None where they are not complete.

    Returns:
        Columns of booleans on the table's index; the seeds of a setting share their marks.

        - `pareto`: no other row costs no more MACs and is surely better.
        - `pareto_time`: no other row takes no more time and is surely better.
        - `best_at_compute`: there are other rows of equal MACs, and none of them is surely better.
    """
    marks = pd.DataFrame(False, index=table.index, columns=["pareto", "pareto_time", "best_at_compute"])
    outcome = pd.Series(list(outcomes), index=table.index, dtype=object)
    costs = {name: pd.to_numeric(table[name]) for name in ("gmacs", "latency_ms")}
    answered = table.assign(outcome=outcome, **costs).dropna(subset=["outcome"])
    among = [answered["model"], answered["regime"].eq(FINE_TUNED), answered["batch_size"], answered["mode"]]
    for _, block in answered.groupby(among, sort=False, dropna=False):
        settings = block.groupby(columns_without("seed"), sort=False, dropna=False)
        member = settings.ngroup().to_numpy()
        better = _better(np.stack([marks_of(text) for text in block["outcome"]]))
        # A setting is better where no pair of seeds says otherwise.
        belongs = (np.arange(settings.ngroups)[:, None] == member).astype(float)
        surely = belongs @ ~better @ belongs.T == 0
        gmacs, time = (settings[name].mean() for name in costs)
        found = (pareto_front(gmacs, surely), pareto_front(time, surely), best_at_equal_cost(gmacs, surely))
        marks.loc[block.index] = np.stack(found, axis=1)[member]
    return {str(name): column for name, column in marks.items()}


def correctness(results: Results) -> pd.DataFrame:
    """Long: one line per image and measured answer."""
    parts = []
    labels = results.images or {}
    rows = {row.keys["accuracy"]: row for row in results.plan.rows if "accuracy" in row.keys}
    for row in rows.values():
        outcomes = results.outcomes(row)
        if outcomes is None:
            continue
        marks = marks_of(outcomes)
        part = pd.DataFrame({"image": list(labels), "label": list(labels.values())})
        names = {name: getattr(row.id, name) for name in ANSWER}
        parts.append(part.assign(top1=marks == RIGHT, top5=marks != WRONG, **names)[marks != UNREADABLE])
    columns = [*ANSWER, "image", "label", "top1", "top5"]
    joined = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    texts = dict.fromkeys((*(name for name in ANSWER if name not in ("keep", "seed")), "image"), "category")
    return joined[columns].astype({**texts, "keep": "float64", "seed": "Int64"})


def _better(marks: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(rows, rows): is the row surely better than the column, from (rows, images) outcomes?"""
    right = (marks == RIGHT).astype(np.float32)  # exact for counts of images
    wrong = ((marks != RIGHT) & (marks != UNREADABLE)).astype(np.float32)
    gained = right @ wrong.T
    return surely_better(gained, gained.T)
