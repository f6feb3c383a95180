"""Carrying a plan out: what has no record yet is measured, and each record is on the disk before the next begins."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any

import torch
from rich.progress import Progress
from timm.data.config import resolve_data_config
from torch import Tensor

from tokbench.compare.pictures import adaptive, pictures_for, shown
from tokbench.compare.prepare import Prepared, Row, put_together
from tokbench.compare.records import LOST_IMAGE, announced, attempt, missing
from tokbench.compare.redundancy import analyse
from tokbench.compare.timing import time, weigh
from tokbench.data.loading import Batch, Unreadable, batches, check_unreadable, evaluation_transform
from tokbench.measure.accuracy import evaluate, image_ids
from tokbench.measure.macs import count_macs, spread_of_macs
from tokbench.models import Pretrained
from tokbench.store import Store

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHARD = 8  # batches that are decoded, shown to every method and forgotten; what a kill can cost


def run(prepared: Prepared, store: Store, progress: Progress) -> None:
    """Measure everything that is missing.

    Args:
        prepared: What to measure.
        store: Where it goes.
        progress: Shows how far it is.

    Raises:
        UserError: More than 1 % of the images cannot be read.
    """
    rows = [row for row in prepared.rows if row.keys and not row.failed]
    place = (prepared.device, DTYPES[prepared.suite.dtype])
    for name, model in prepared.models.items():
        own = [row for row in rows if row.cell.model == name]
        model.vit.to(*place)
        _count(own, model, prepared, store, progress)
        analyse(own, model, prepared, store, progress)
        time(own, model, prepared, store, progress)
        weigh(own, model, prepared, store, progress)
        model.vit.to("cpu")
    for names in _seeing_alike(prepared.models):
        for name in names:
            prepared.models[name].vit.to(*place)
        _classify([row for row in rows if row.cell.model in names], prepared, store, progress)
        for name in names:
            prepared.models[name].vit.to("cpu")


def unreadable(prepared: Prepared, store: Store) -> list[Unreadable]:
    """The images that could not be decoded, in this run or those before it."""
    if prepared.images is None:
        return []
    found = {name: store.get(LOST_IMAGE, f"{prepared.images.identity}/{name}") for name in prepared.images.names}
    return [Unreadable(name, record["reason"]) for name, record in found.items() if record]


def shard_key(key: str, start: int) -> str:
    """The key of the part of an accuracy that begins at an image's position."""
    return f"{key}/{start}"


def shards(images: int, batch: int) -> list[range]:
    """The stretches that an image set is measured in: whole batches, so that no batch is ever cut otherwise."""
    step = SHARD * batch
    return [range(start, min(start + step, images)) for start in range(0, images, step)]


def _count(rows: list[Row], model: Pretrained, prepared: Prepared, store: Store, progress: Progress) -> None:
    uncounted = missing(rows, "macs", store)
    if not uncounted:
        return
    pictures = pictures_for([row.cell for row in uncounted.values()], model, prepared.images)
    for key, row in announced(uncounted, "macs", progress):
        attempt("macs", key, store, partial(_counted, row, model, pictures))


def _counted(row: Row, model: Pretrained, pictures: Tensor) -> dict[str, Any]:
    built = put_together(row.cell, model)
    macs = count_macs(built, pictures[:1])
    counted = {"total": macs.total, "method": macs.method, "tokens": macs.ledger.leaving}
    if not adaptive(row.cell.variant):
        return counted
    # That the ways of counting agree is known by now; how much it is differs from batch to batch.
    return asdict(spread_of_macs(built, shown(row.cell, pictures)))


def _seeing_alike(models: dict[str, Pretrained]) -> list[list[str]]:
    """The models' names, grouped by their preprocessing: a group can share its decoded images."""
    groups: dict[str, list[str]] = {}
    for name, model in models.items():
        groups.setdefault(str(resolve_data_config({}, model=model.vit)), []).append(name)
    return list(groups.values())


def _classify(rows: list[Row], prepared: Prepared, store: Store, progress: Progress) -> None:
    """Decode each image once and show it to every model and method that has not seen it."""
    images, models = prepared.images, prepared.models
    wanted = {row.keys["accuracy"]: row for row in rows if "accuracy" in row.keys}
    if images is None or not wanted:
        return
    batch = prepared.suite.accuracy_batch
    spans = shards(len(images), batch)
    todo = [[key for key in wanted if store.get("accuracy", shard_key(key, span.start)) is None] for span in spans]
    first = next((number for number, keys in enumerate(todo) if keys), None)
    if first is None:
        return
    built = {key: put_together(row.cell, models[row.cell.model]) for key, row in wanted.items()}
    ids = image_ids(images.names)
    transform = evaluation_transform(models[rows[0].cell.model].vit)
    decoded = batches(images, transform, batch_size=batch, workers=prepared.suite.workers, start=spans[first].start)
    task = progress.add_task("accuracy", total=sum(len(keys) for keys in todo), kind="accuracy")
    for span, keys in zip(spans[first:], todo[first:], strict=True):
        progress.update(task, key=None, refresh=True)
        stretch = list(islice(decoded, SHARD))
        for lost in (image for _, images_lost in stretch for image in images_lost):
            store.add(LOST_IMAGE, f"{images.identity}/{lost.name}", {"reason": lost.reason})
        check_unreadable(unreadable(prepared, store), len(images))
        seen = [part for part, _ in stretch]
        for key in keys:
            progress.update(task, key=key, refresh=True)

            def classify(key: str = key, span: range = span, seen: list[Batch] = seen) -> dict[str, Any]:
                return {"outcomes": evaluate(built[key], seen, ids, span, images.classes)}

            if key in built and not attempt("accuracy", shard_key(key, span.start), store, classify):
                del built[key]
            progress.advance(task)
