"""Two versions of methods measured in one session, in turn.

Times of two sessions on a hosted runner differ by more than most changes. Old and new in one process, on the same
model, batches and images, share all of that: what still differs is the method.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from tokbench.check.finding import Finding, Outcome, Row
from tokbench.check.rules import Counts, judge_answers_exactly, judge_counts, judge_times
from tokbench.compare.accuracy import MIB, SHARD, decoded, shards
from tokbench.compare.plan import Cell
from tokbench.compare.prepare import Prepared, put_together
from tokbench.compare.run import DTYPES
from tokbench.compare.sample_images import pictures_for, shown
from tokbench.config import Check, Suite
from tokbench.data.loading import Batch, Unreadable, check_unreadable
from tokbench.data.preprocessing import preprocessing_of
from tokbench.downsampler import Downsampler
from tokbench.measure.accuracy import UNREADABLE, SharedBlocks, evaluate, image_ids
from tokbench.measure.latency import FLOOR_BLOCKS, Forward, Latency, measure_floor, measure_latency, noise_floor
from tokbench.measure.macs import count_macs, spread_of_macs
from tokbench.measure.modes import forget_compiled, in_mode
from tokbench.names import OFF_THE_SHELF, PUBLISHED
from tokbench.notation import bind
from tokbench.registry import method_class
from tokbench.results.answers import RIGHT
from tokbench.schedule import Schedule, takes_keep
from tokbench.stats.times import Comparison, compare_times
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import Pretrained

T = TypeVar("T")


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
    old: Forward, new: Forward, batches: Sequence[Tensor], seconds: float, precision: float
) -> TimedVersions:
    """Time two versions of a model in turn, and the old one against itself for the noise.

    Args:
        old: The version before; the two may be one and the same.
        new: The version now.
        batches: Each (B, C, H, W) on the models' device, as `measure_latency` takes them.
        seconds: How long the comparison may take, and how long the noise.
        precision: The half width of the interval at which both stop earlier.
    """
    blocks = measure_floor(old, batches, seconds / FLOOR_BLOCKS, precision)
    floor = noise_floor(blocks)
    latency = measure_latency(old, new, batches, seconds, precision)
    return TimedVersions(latency, floor, compare_times(latency.base_s, latency.other_s, floor))


@dataclass(frozen=True, eq=False)
class _Failure:
    reason: str


@dataclass(frozen=True, eq=False)
class _Pair:
    """A cell with both versions in its model, and the batches it is timed on."""

    cell: Cell
    row: Row
    old: DownsampledViT
    new: DownsampledViT
    batches: Sequence[Tensor]


def check_versions(
    prepared: Prepared, older: Mapping[str, type[Downsampler]], thresholds: Check, progress: Progress
) -> tuple[tuple[Row, ...], tuple[Finding, ...]]:
    """Measure both versions of every cell and judge the new ones.

    Args:
        prepared: The cells, with the new versions.
        older: The old version of each method.
        thresholds: What is allowed, and how long to measure.
        progress: Shows how far it is.

    Returns:
        The rows, and what was found.
    """
    suite = prepared.suite
    cells = [row.cell for row in prepared.rows if row.keys]
    rows = tuple(_row(cell, suite) for cell in cells)
    findings: list[Finding] = []
    for name, model in prepared.models.items():
        own = [(cell, row) for cell, row in zip(cells, rows, strict=True) if cell.model == name]
        if not own:
            continue
        model.vit.to(prepared.device, DTYPES[suite.dtype])
        pictures = pictures_for([cell for cell, _ in own], model, prepared.images)
        tried = [_pair(cell, row, older[cell.variant.method], model, suite, pictures) for cell, row in own]
        findings += [failed for failed in tried if isinstance(failed, Finding)]
        pairs = [pair for pair in tried if isinstance(pair, _Pair)]
        # Seeds share their counts and times.
        once = list({replace(pair.row, seed=None): pair for pair in reversed(pairs)}.values())[::-1]
        for pair in progress.track(once, description=f"counts and times, {name}"):
            if "macs" in suite.only:
                findings += _counts(pair, thresholds)
            if "latency" in suite.only:
                findings += _times(pair, thresholds)
        if "accuracy" in suite.only:
            findings += _answers(pairs, model, prepared, progress)
        model.vit.to("cpu")
    return rows, tuple(dict.fromkeys(findings))


def _row(cell: Cell, suite: Suite) -> Row:
    variant = cell.variant
    return Row(
        model=cell.model,
        method=variant.method,
        params=variant.params_text,
        regime=OFF_THE_SHELF,
        site=variant.site,
        schedule=variant.schedule,
        keep=variant.keep,
        seed=cell.seed,
        dtype=suite.dtype,
        batch_size=cell.batch_size,
        mode=cell.mode,
    )


def _pair(
    cell: Cell, row: Row, older: type[Downsampler], model: Pretrained, suite: Suite, pictures: Tensor
) -> _Pair | Finding:
    """Both versions, each having run on every batch; or what kept one from it."""
    batches = shown(cell, pictures)

    def tried(build: Callable[[], DownsampledViT]) -> DownsampledViT:
        built = build()
        with torch.inference_mode():
            for images in batches:
                built(images)
        return built

    old = _attempt(lambda: tried(lambda: _put_together_older(cell, older, model, suite)))
    new = _attempt(lambda: tried(lambda: put_together(cell, model)))
    if isinstance(old, _Failure) or isinstance(new, _Failure):
        return _failed(row, "status", old, new)
    return _Pair(cell, row, old, new, batches)


def _put_together_older(cell: Cell, older: type[Downsampler], model: Pretrained, suite: Suite) -> DownsampledViT:
    """The cell's model with the old version in it, at its own defaults where the cell says nothing else."""
    variant = cell.variant
    now = inspect.signature(method_class(variant.method)).parameters
    given = {name: value for name, value in variant.params if value != now[name].default}
    method = older(**bind(older, given, f"the older '{variant.method}'"))
    schedule, kept = variant.schedule, variant.keep
    if suite.schedule == PUBLISHED and method.schedule not in (None, schedule):
        schedule = method.schedule
        kept = variant.keep if takes_keep(schedule) else None
    parsed = Schedule.parse(schedule, kept)
    site = suite.site or method.site
    return DownsampledViT(model.vit, method, parsed, site=site, seed=cell.seed or 0).eval()


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
    old, new = (in_mode(model, pair.cell.mode, pair.batches[0]) for model in (pair.old, pair.new))
    timed = compare_versions(old, new, pair.batches, thresholds.seconds, thresholds.precision)
    medians = (float(np.median(samples)) for samples in (timed.latency.base_s, timed.latency.other_s))
    yield from judge_times(pair.row, timed.change, timed.floor, thresholds.speedup / 100, *medians)


def _answers(pairs: Sequence[_Pair], model: Pretrained, prepared: Prepared, progress: Progress) -> Iterator[Finding]:
    """Decode each image once and show it to both versions of every cell."""
    images, suite = prepared.images, prepared.suite
    if images is None or not pairs:
        return
    ids, preprocessing = image_ids(images.names), preprocessing_of(model.vit)
    loaded = decoded(images, preprocessing, prepared, range(len(images)))
    # Batch size and mode are the timed batches'.
    pairs_by_row = {replace(pair.row, batch_size=None, mode=""): pair for pair in pairs}
    both = {(row, now): pair.new if now else pair.old for row, pair in pairs_by_row.items() for now in (False, True)}
    versions = dict(sorted(both.items(), key=lambda version: version[1].start))
    first = next(iter(versions.values()))
    said: dict[tuple[Row, bool], str | _Failure] = dict.fromkeys(versions, "")
    lost: list[Unreadable] = []
    for span in progress.track(shards(len(images), suite.accuracy_batch), description="accuracy"):
        stretch: list[Batch] = []
        shared = SharedBlocks(DownsampledViT(model.vit).eval(), stretch, ids, preprocessing, suite.memory * MIB)
        for batch, unread in islice(loaded, SHARD):
            stretch.append(batch)
            lost += unread
            shared.advance(first.start, len(stretch) - 1)
        for key, version in versions.items():
            before = said[key]
            if isinstance(before, str):
                part = _attempt(partial(evaluate, version, shared, span, images.classes))
                said[key] = part if isinstance(part, _Failure) else before + part
    check_unreadable(lost, len(images))
    for row in pairs_by_row:
        old, new = said[row, False], said[row, True]
        if isinstance(old, _Failure) or isinstance(new, _Failure):
            yield _failed(row, "top1", old, new)
        else:
            marks, marks_now = np.array(list(old)), np.array(list(new))
            read = marks != UNREADABLE
            yield from judge_answers_exactly(row, marks[read] == RIGHT, marks_now[read] == RIGHT)


def _attempt(measure: Callable[[], T]) -> T | _Failure:
    """What a version gives, or why it fails: a method is somebody else's code."""
    try:
        return measure()
    except Exception as error:
        text = str(error).strip() or "no message"
        return _Failure(f"{type(error).__name__}: {text.splitlines()[0]}")


def _failed(row: Row, column: str, old: object, new: object) -> Finding:
    """What it means that one of the two versions failed, or both."""
    if not isinstance(new, _Failure):
        outcome, note = Outcome.IMPROVED, old.reason if isinstance(old, _Failure) else ""
    elif isinstance(old, _Failure):
        outcome, note = Outcome.MOVED, f"it failed before, too: {new.reason}"
    else:
        outcome, note = Outcome.REGRESSED, new.reason
    words = ["failed" if isinstance(version, _Failure) else "ok" for version in (old, new)]
    return Finding(outcome, column, note, row, *words)
