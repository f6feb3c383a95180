"""The accuracy pass: each image is decoded once for all cells, and blocks that cells share are computed once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from rich.progress import Progress
from timm.data.config import resolve_data_config
from timm.models.vision_transformer import VisionTransformer

from tokbench.compare.prepare import Prepared, Row, put_together
from tokbench.compare.records import LOST_IMAGE, attempt
from tokbench.data.cache import open_cache
from tokbench.data.loading import Batch, Unreadable, batches, check_unreadable
from tokbench.data.preprocessing import Preprocessing, preprocessing_of
from tokbench.data.sets import ImageSet
from tokbench.measure.accuracy import SharedBlocks, evaluate, image_ids
from tokbench.measure.allocator import keep_freed_memory
from tokbench.results.store import Store
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import Pretrained

SHARD = 8  # batches that are decoded, shown to every method and forgotten; what a kill can cost
MIB = 2**20
NICENESS = 10  # of processes that decode on the cores that the models run on


def shard_key(key: str, start: int) -> str:
    """The key of the part of an accuracy that begins at an image's position."""
    return f"{key}/{start}"


def shards(images: int, batch: int) -> list[range]:
    """The stretches that an image set is measured in: whole batches, so that no batch is ever cut otherwise."""
    step = SHARD * batch
    return [range(start, min(start + step, images)) for start in range(0, images, step)]


def unreadable(prepared: Prepared, store: Store) -> list[Unreadable]:
    """The images that could not be decoded, in this run or those before it."""
    if prepared.images is None:
        return []
    found = {name: store.get(LOST_IMAGE, f"{prepared.images.identity}/{name}") for name in prepared.images.names}
    return [Unreadable(name, record["reason"]) for name, record in found.items() if record]


def classify(
    rows: Sequence[Row],
    prepared: Prepared,
    store: Store,
    progress: Progress,
    spans: Sequence[range] | None = None,
) -> None:
    """Measure the accuracies that have no record yet.

    Args:
        rows: The rows wanted, of any of the models.
        prepared: The plan; its models lie on its device.
        store: Where it goes: a record for each row and stretch.
        progress: Shows how far it is.
        spans: Some of the set's `shards`, following one another; None for all.

    Raises:
        UserError: More than 1 % of the images cannot be read, or the cache cannot be written.
    """
    with keep_freed_memory():
        for group in _seeing_alike(rows, prepared.models):
            _classify_alike(group, prepared, store, progress, spans)


def _seeing_alike(rows: Sequence[Row], models: dict[str, Pretrained]) -> list[list[Row]]:
    """The rows, grouped by their models' preprocessing: a group shares its decoded images."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(resolve_data_config({}, model=models[row.cell.model].vit)), []).append(row)
    return list(groups.values())


def _classify_alike(
    rows: Sequence[Row],
    prepared: Prepared,
    store: Store,
    progress: Progress,
    spans: Sequence[range] | None,
) -> None:
    images, suite = prepared.images, prepared.suite
    wanted = {row.keys["accuracy"]: row for row in rows if "accuracy" in row.keys}
    if images is None or not wanted:
        return
    spans = shards(len(images), suite.accuracy_batch) if spans is None else spans
    todo = [[key for key in wanted if store.get("accuracy", shard_key(key, span.start)) is None] for span in spans]
    first = next((number for number, keys in enumerate(todo) if keys), None)
    if first is None:
        return
    built = {key: put_together(row.cell, prepared.models[row.cell.model]) for key, row in wanted.items()}
    ids = image_ids(images.names)
    preprocessing = preprocessing_of(prepared.models[rows[0].cell.model].vit)
    loaded = decoded(images, preprocessing, prepared, range(spans[first].start, spans[-1].stop))
    task = progress.add_task("accuracy", total=sum(len(keys) for keys in todo), kind="accuracy")
    check_unreadable(unreadable(prepared, store), len(images))
    for span, keys in zip(spans[first:], todo[first:], strict=True):
        progress.update(task, key=None, refresh=True)
        seen: list[Batch] = []
        groups = [
            (SharedBlocks(DownsampledViT(vit).eval(), seen, ids, preprocessing, suite.memory * MIB), several)
            for vit, several in _by_model(keys, built)
        ]
        for batch, lost in islice(loaded, SHARD):
            seen.append(batch)
            for image in lost:
                store.add(LOST_IMAGE, f"{images.identity}/{image.name}", {"reason": image.reason})
            if lost:
                check_unreadable(unreadable(prepared, store), len(images))
            for shared, several in groups[:1]:  # while the next images are decoded
                shared.advance(built[several[0]].start, len(seen) - 1)
        progress.advance(task, len([key for key in keys if key not in built]))  # have failed before
        while groups:
            shared, several = groups.pop(0)  # what it holds goes with it
            for key in several:
                progress.update(task, key=key, refresh=True)
                classified = partial(_outcomes, built[key], shared, span, images)
                if not attempt("accuracy", shard_key(key, span.start), store, classified):
                    del built[key]
                progress.advance(task)


def _outcomes(model: DownsampledViT, shared: SharedBlocks, span: range, images: ImageSet) -> dict[str, Any]:
    return {"outcomes": evaluate(model, shared, span, images.classes)}


def decoded(
    images: ImageSet, preprocessing: Preprocessing, prepared: Prepared, wanted: range
) -> Iterator[tuple[Batch, tuple[Unreadable, ...]]]:
    """Some of a set's images in batches, decoded as the plan's suite wants it.

    Args:
        images: The set.
        preprocessing: The model's.
        prepared: The plan.
        wanted: Positions, from the beginning of a batch.

    Yields:
        A batch, and what could not be read of its positions.

    Raises:
        DataError: The cache cannot be written.
    """
    suite = prepared.suite
    return batches(
        images,
        preprocessing.pixels,
        batch_size=suite.accuracy_batch,
        workers=suite.workers,
        start=wanted.start,
        stop=wanted.stop,
        waiting=suite.memory * MIB // (suite.accuracy_batch * math.prod(preprocessing.shape)),
        cache=None if suite.cache is None else open_cache(suite.cache, preprocessing),
        pin_memory=prepared.device.type == "cuda",
        niceness=0 if prepared.device.type == "cuda" else NICENESS,
    )


def _by_model(
    keys: Iterable[str], built: Mapping[str, DownsampledViT]
) -> Iterator[tuple[VisionTransformer, list[str]]]:
    """The keys of those that were built, model by model, and of a model those first that act first."""
    groups: dict[VisionTransformer, list[str]] = {}
    for key in keys:
        if key in built:
            groups.setdefault(built[key].vit, []).append(key)
    for vit, several in groups.items():
        yield vit, sorted(several, key=lambda key: built[key].start)
