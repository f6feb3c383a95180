"""Two versions of methods measured in one session, alternately.

Times of two sessions on a hosted runner differ by more than most changes. Old and new in one process, on the same
model, batches and images, share all of that: what still differs is the method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tokbench.check.finding import Finding, Outcome
from tokbench.check.rules import Counts, judge_answers_exactly, judge_counts, judge_times
from tokbench.config import Check
from tokbench.data.errors import DataError
from tokbench.data.loading import Unreadable, check_unreadable
from tokbench.downsampler import Downsampler
from tokbench.errors import describe
from tokbench.isolation import ends_the_run
from tokbench.measure.answers import Answers, classify
from tokbench.measure.call_timer import Forward
from tokbench.measure.latency import FLOOR_BLOCKS, Latency, measure_floor, measure_latency, noise_floor
from tokbench.measure.macs import count_macs, spread_of_macs
from tokbench.measure.modes import forget_compiled, in_mode
from tokbench.names import PUBLISHED
from tokbench.notation import bind
from tokbench.outcomes import RIGHT, UNREADABLE
from tokbench.parameters import parameters_of
from tokbench.registry import method_class
from tokbench.rows import RowId
from tokbench.run.bench import Bench, open_bench
from tokbench.run.cells import Cell
from tokbench.run.observer import Observer
from tokbench.run.prepare import Prepared, Row
from tokbench.schedule import Schedule
from tokbench.schedule_text import takes_keep
from tokbench.stats.times import Comparison, compare_times
from tokbench.values import freeze
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.calibration import calibrate
from tokbench.vit.models import load_method_weights

T = TypeVar("T")

OLD, NEW = "old", "new"


@dataclass(frozen=True)
class TimedVersions:
    """Two versions' times.

    Attributes:
        latency: Paired samples, the old version as the base.
        floor: What the old version differed from itself by in the same session, as a fraction.
        change: The old time to the new one: under 1 the new version is slower.
    """

    latency: Latency
    floor: float
    change: Comparison


def compare_versions(
    build_old: Callable[[], Forward],
    build_new: Callable[[], Forward],
    batches: Sequence[Tensor],
    seconds: float,
    precision: float,
) -> TimedVersions:
    """Time two versions of a model in turn, and the old one against itself for the noise floor.

    Args:
        build_old: Builds the version before; the two may be one and the same.
        build_new: Builds the version now.
        batches: Each (B, C, H, W) on the models' device, as `measure_latency` takes them.
        seconds: How long the comparison may take, and how long the noise floor.
        precision: The precision at which both stop earlier.
    """
    blocks = measure_floor(build_old, batches, seconds / FLOOR_BLOCKS, precision)
    floor = noise_floor(blocks)
    latency = measure_latency(build_old(), build_new(), batches, seconds, precision)
    return TimedVersions(latency, floor, compare_times(latency.base_s, latency.other_s, floor))


@dataclass(frozen=True, eq=False)
class _Failure:
    reason: str


@dataclass(frozen=True, eq=False)
class _Pair:
    """A row with both versions in its model, and the batches that it is timed on."""

    row: RowId
    cell: Cell
    old: DownsampledViT
    new: DownsampledViT
    batches: Sequence[Tensor]


def check_versions(
    prepared: Prepared, older: Mapping[str, type[Downsampler]], thresholds: Check, observer: Observer
) -> tuple[tuple[RowId, ...], tuple[Finding, ...]]:
    """Measure both versions of every row and judge the new ones.

    Args:
        prepared: The rows, with the new versions.
        older: The old version of each method.
        thresholds: What is allowed, and how long to measure.
        observer: Shows progress.

    Returns:
        The rows, and what was found.
    """
    suite = prepared.suite
    rows = [row for row in prepared.rows if row.keys]
    bench = open_bench(prepared, _Nowhere(), observer)
    findings: list[Finding] = []
    for name in prepared.models:
        own = [row for row in rows if row.cell.model == name]
        if not own:
            continue
        with bench.on_device([name]):
            images = bench.sample_images(own)
            tried = [_pair(row, older[row.cell.variant.method], bench, images) for row in own]
            findings += [failed for failed in tried if isinstance(failed, Finding)]
            pairs = [pair for pair in tried if isinstance(pair, _Pair)]
            # Seeds share their counts and times.
            once = list({pair.row.without("seed"): pair for pair in reversed(pairs)}.values())[::-1]
            step = f"counts and times, {name}"
            observer.planned(step, len(once))
            for pair in once:
                if "macs" in suite.only:
                    findings += _counts(pair, thresholds)
                if "latency" in suite.only:
                    findings += _times(pair, thresholds)
                observer.measured(step)
            if "accuracy" in suite.only:
                findings += _answers(pairs, bench)
    return tuple(row.cell.row_id(suite.dtype) for row in rows), tuple(dict.fromkeys(findings))


class _Nowhere:
    """No records are kept: both versions are measured each time."""

    def get(self, kind: str, key: str) -> None:
        """There is none."""

    def add(self, kind: str, key: str, value: Mapping[str, object]) -> None:
        """Nothing is written."""


def _pair(row: Row, older: type[Downsampler], bench: Bench, images: Tensor) -> _Pair | Finding:
    """Both versions, each having run on every batch; or what prevented it."""
    batches = bench.batches(row, images)

    def tried(build: Callable[[], DownsampledViT]) -> DownsampledViT:
        built = build()
        with torch.inference_mode():
            for batch in batches:
                built(batch)
        return built

    row_id = row.cell.row_id(bench.suite.dtype)
    old = _attempt(lambda: tried(lambda: _build_older(row, older, bench)))
    new = _attempt(lambda: tried(lambda: bench.build(row)))
    if isinstance(old, _Failure) or isinstance(new, _Failure):
        return _failed(row_id, "status", old, new)
    return _Pair(row_id, row.cell, old, new, batches)


def _build_older(row: Row, older: type[Downsampler], bench: Bench) -> DownsampledViT:
    """The row's model with the old version in it, at its own defaults where the row says nothing else."""
    variant, suite = row.cell.variant, bench.suite
    now = parameters_of(method_class(variant.method))
    given = {name: value for name, value in variant.params if value != freeze(now[name].default)}
    method = older(**bind(older, given, f"the older '{variant.method}'"))
    schedule, keep = variant.schedule, variant.keep
    is_own = PUBLISHED in suite.schedule and schedule not in suite.schedule
    if is_own and method.schedule not in (None, schedule):
        schedule = method.schedule
        keep = variant.keep if takes_keep(schedule) else None
    parsed = Schedule.parse(schedule, keep)
    site = suite.site or method.site
    seed = row.cell.seed or 0
    built = DownsampledViT(bench.plain(row), method, parsed, site=site, position=suite.position, seed=seed)
    load_method_weights(built, bench.prepared.models[row.cell.model].downsampler)
    built.eval()
    calibration = bench.prepared.calibration
    if calibration is not None:  # by its own rule, which may be what has changed
        weight = bench.plain(row).patch_embed.proj.weight
        calibrate(built, [batch.to(weight) for batch in calibration.batches(bench.plain(row))])
    return built


def _counts(pair: _Pair, thresholds: Check) -> Iterator[Finding]:
    old, new = (_attempt(partial(_count, model, pair.batches)) for model in (pair.old, pair.new))
    if isinstance(old, _Failure) or isinstance(new, _Failure):
        yield _failed(pair.row, "gmacs", old, new)
    else:
        yield from judge_counts(pair.row, old, new, thresholds.gmacs)


def _count(model: DownsampledViT, batches: Sequence[Tensor]) -> Counts:
    if model.downsampler is not None and model.downsampler.adaptive:
        spread = spread_of_macs(model, batches)
        return Counts(" ".join(map(str, spread.tokens)), spread.total / 1e9, spread.method / 1e9)
    macs = count_macs(model, batches[0][:1])
    return Counts(" ".join(map(str, macs.ledger.leaving)), macs.total / 1e9, macs.method / 1e9)


def _times(pair: _Pair, thresholds: Check) -> Iterator[Finding]:
    forget_compiled()
    old, new = (partial(in_mode, model, pair.cell.mode, pair.batches[0]) for model in (pair.old, pair.new))
    timed = compare_versions(old, new, pair.batches, thresholds.seconds, thresholds.precision)
    medians = (float(np.median(samples)) for samples in (timed.latency.base_s, timed.latency.other_s))
    yield from judge_times(pair.row, timed.change, timed.floor, thresholds.speedup / 100, *medians)


def _answers(pairs: Sequence[_Pair], bench: Bench) -> Iterator[Finding]:
    """Decode each image once and classify it with both versions of every row."""
    images = bench.images
    if images is None or not pairs:
        return
    # Batch size and mode are the timed batches'.
    rows = list({pair.row.without("batch_size", "mode"): pair for pair in pairs}.items())
    models = {
        f"{number}/{version}": getattr(pair, version) for number, (_, pair) in enumerate(rows) for version in (OLD, NEW)
    }
    outcomes: dict[str, str | _Failure] = dict.fromkeys(models, "")
    lost: list[Unreadable] = []
    todo = {shard: list(models) for shard in bench.shards}
    bench.observer.planned("accuracy", len(todo) * len(models))

    def attempt(key: str, shard: range, evaluate: Callable[[], Answers]) -> bool:
        now, before = _attempt(lambda: evaluate().outcomes), outcomes[key]
        outcomes[key] = now if isinstance(now, _Failure) or isinstance(before, _Failure) else before + now
        return not isinstance(now, _Failure)

    for progress in classify(models, images, todo, bench.loading(), attempt):
        lost += progress.unreadable
        bench.observer.measured("accuracy", progress.count)
    check_unreadable(lost, len(images))
    for number, (row, _) in enumerate(rows):
        old, new = outcomes[f"{number}/{OLD}"], outcomes[f"{number}/{NEW}"]
        if isinstance(old, _Failure) or isinstance(new, _Failure):
            yield _failed(row, "top1", old, new)
        else:
            marks, marks_now = np.array(list(old)), np.array(list(new))
            read = marks != UNREADABLE
            yield from judge_answers_exactly(row, marks[read] == RIGHT, marks_now[read] == RIGHT)


def _attempt(measure: Callable[[], T]) -> T | _Failure:
    """What a version gives, or why it fails: a method may be anybody's code."""
    try:
        return measure()
    except BaseException as error:
        if isinstance(error, DataError) or ends_the_run(error):
            raise
        return _Failure(describe(error))


def _failed(row: RowId, column: str, old: object, new: object) -> Finding:
    """What it means that one of the two versions failed, or both."""
    if not isinstance(new, _Failure):
        outcome, note = Outcome.IMPROVED, old.reason if isinstance(old, _Failure) else ""
    elif isinstance(old, _Failure):
        outcome, note = Outcome.MOVED, f"it failed before, too: {new.reason}"
    else:
        outcome, note = Outcome.REGRESSED, new.reason
    words = ["failed" if isinstance(version, _Failure) else "ok" for version in (old, new)]
    return Finding(outcome, column, note, row, *words)
