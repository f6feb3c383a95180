"""Accuracy: how each image of a set came out, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tokbench.kinds.base import Column, Conditions, Kind, Pace
from tokbench.kinds.pixels import PIXEL_COLUMNS, over_pixels
from tokbench.outcomes import RIGHT, UNREADABLE, WRONG, marks_of, shard_key
from tokbench.rows import ANSWER, columns_without
from tokbench.stats.proportions import mcnemar, surely_better, tango, wilson
from tokbench.stats.times import pareto_front

if TYPE_CHECKING:
    from tokbench.config import Suite
    from tokbench.results import PlannedRow, Results
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row
    from tokbench.vit.backbone import DownsampledViT


@dataclass(frozen=True)
class AccuracyRecord:
    """One character for each image of a shard; see `tokbench.outcomes`."""

    outcomes: str


class Accuracy(Kind[AccuracyRecord]):
    """Top-1 and top-5, and the paired difference from the plain model on the same images."""

    name = "accuracy"
    record = AccuracyRecord
    sharded = True
    exact = True
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
        *PIXEL_COLUMNS,
    )

    def needs_data(self, suite: Suite) -> tuple[str, str] | None:
        """Always."""
        wanted = self.name in suite.only
        return ("measure accuracy on", "leave accuracy out with --only macs,latency") if wanted else None

    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        """What runs, where, on which images in which batches, and the seed."""
        return {
            **conditions.method,
            **conditions.device,
            "data": conditions.data,
            "batch": conditions.suite.accuracy_batch,
            "seed": conditions.seed,
        }

    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """Each image is decoded once and classified by every row."""
        return pace.images * (pace.decode_s + len(rows) * pace.image_s) if rows else 0.0

    def measure(self, rows: Mapping[str, Row], bench: Bench) -> None:
        """Classify all images with all rows, shard by shard."""
        if bench.images is None or not rows:
            return
        from tokbench.measure.accuracy import classify

        lost = bench.lost_images.try_again()
        bench.lost_images.check()
        todo = {shard: [key for key in rows if _is_open(key, shard, lost, bench)] for shard in bench.shards}
        models = self._build(rows, todo, bench)
        todo = {shard: [key for key in keys if key in models] for shard, keys in todo.items()}
        if not models:
            return
        bench.observer.planned(self.name, sum(len(keys) for keys in todo.values()))

        def attempt(key: str, shard: range, evaluate: Callable[[], str]) -> bool:
            bench.observer.measuring(self.name, key)
            return bench.attempt(self, shard_key(key, shard), lambda: AccuracyRecord(evaluate()))

        for progress in classify(models, bench.images, todo, bench.loading(), attempt):
            for image in progress.unreadable:
                bench.lost_images.add(image)
            bench.observer.measured(self.name, progress.count)

    def _build(
        self, rows: Mapping[str, Row], todo: Mapping[range, Sequence[str]], bench: Bench
    ) -> dict[str, DownsampledViT]:
        """The models of the rows that lack a shard; not those that cannot be built."""
        models: dict[str, DownsampledViT] = {}
        for key, row in rows.items():
            missing = [shard_key(key, shard) for shard, keys in todo.items() if key in keys]
            model = bench.try_build(self, missing[0], row) if missing else None
            if model is not None:
                models[key] = model
        return models

    def fill(self, row: PlannedRow, plain: PlannedRow | None, results: Results) -> dict[str, Any]:
        """Percent and points; images that could not be read count nowhere."""
        base = None if plain is None else results.outcomes(plain)
        return accuracy_columns(results.outcomes(row), base)

    def complete(self, table: pd.DataFrame, results: Results) -> pd.DataFrame:
        """The spread over seeds, the Pareto front, and the comparison with fewer pixels."""
        outcomes = [results.outcomes(row) for row in results.plan.rows]
        return table.assign(top1_sd=seeds_spread(table), pareto=front(table, outcomes), **over_pixels(table, outcomes))

    def live(self, records: Sequence[AccuracyRecord]) -> dict[str, float]:
        """Top-1 of the images so far."""
        text = "".join(record.outcomes for record in records)
        seen = len(text) - text.count(UNREADABLE)
        return {"top1": 100 * text.count(RIGHT) / seen} if seen else {}

    def tables(self, results: Results) -> dict[str, pd.DataFrame]:
        """Every image's answer by every row."""
        return {} if results.images is None else {"correctness.parquet": correctness(results)}


ACCURACY = Accuracy()


def _is_open(key: str, shard: range, lost: Collection[int], bench: Bench) -> bool:
    """Whether a shard has no outcomes yet, or lacks those of an image that can be read by now."""
    if bench.is_missing(ACCURACY, shard_key(key, shard)):
        return True
    outcomes = (bench.records.get(ACCURACY.name, shard_key(key, shard)) or {}).get("outcomes", "")
    return any(mark == UNREADABLE and shard[place] not in lost for place, mark in enumerate(outcomes))


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


def front(table: pd.DataFrame, outcomes: Sequence[str | None]) -> pd.Series:
    """Which rows no other row of their model surely beats, where beating is costing no more and being better in top-1.

    A row is surely better where the paired 95 % interval of the difference in top-1 (Tango's) lies above zero. With
    several seeds, each seed must be better than each seed of the other. A row without compute or without accuracy is
    not marked and beats none.

    Args:
        table: The rows of a comparison.
        outcomes: Each row's outcomes, None where they are not complete.

    Returns:
        Booleans on the table's index; the seeds of a setting share one mark.
    """
    best = pd.Series(False, index=table.index)
    outcome = pd.Series(list(outcomes), index=table.index, dtype=object)
    answered = table.assign(outcome=outcome).dropna(subset=["gmacs", "outcome"])
    for _, block in answered.groupby(["model", "batch_size", "mode"], sort=False, dropna=False):
        settings = block.groupby(columns_without("seed"), sort=False, dropna=False)
        member = settings.ngroup().to_numpy()
        better = _better(np.stack([marks_of(text) for text in block["outcome"]]))
        # A setting is better where no pair of seeds says otherwise.
        belongs = (np.arange(settings.ngroups)[:, None] == member).astype(float)
        surely = belongs @ ~better @ belongs.T == 0
        best[block.index] = pareto_front(settings["gmacs"].mean(), surely)[member]
    return best


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
