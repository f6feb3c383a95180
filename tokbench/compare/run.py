"""Carrying a plan out: what has no record yet is measured, and each record is on the disk before the next begins."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from tokbench.compare.prepare import Prepared, Row, put_together
from tokbench.data.loading import Batch, Unreadable, batches, check_unreadable, evaluation_transform
from tokbench.errors import UserError
from tokbench.measure.accuracy import evaluate, image_ids
from tokbench.measure.latency import measure_latency
from tokbench.measure.macs import count_macs
from tokbench.models import Pretrained
from tokbench.store import Store

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHARD = 8  # batches that are decoded, shown to every method and forgotten; what a kill can cost

FAILED = "failed"  # the kind of record that says why a measurement is missing


def run(prepared: Prepared, store: Store, progress: Progress) -> tuple[Unreadable, ...]:
    """Measure everything that is missing.

    Args:
        prepared: What to measure.
        store: Where it goes.
        progress: Shows how far it is.

    Returns:
        The images that could not be read, as far as they were looked at in this run.

    Raises:
        UserError: More than 1 % of the images cannot be read.
    """
    unreadable: dict[str, Unreadable] = {}
    for name, model in prepared.models.items():
        rows = [row for row in prepared.rows if row.cell.model == name and row.keys and not row.failed]
        model.vit.to(prepared.device, DTYPES[prepared.suite.dtype])
        _count(rows, model, prepared, store, progress)
        _time(rows, model, prepared, store, progress)
        for lost in _classify(rows, model, prepared, store, progress):
            unreadable[lost.name] = lost
        model.vit.to("cpu")
    return tuple(unreadable.values())


def shard_key(key: str, start: int) -> str:
    """The key of the part of an accuracy that begins at an image's position."""
    return f"{key}/{start}"


def shards(images: int, batch: int) -> list[range]:
    """The stretches that an image set is measured in: whole batches, so that no batch is ever cut otherwise."""
    step = SHARD * batch
    return [range(start, min(start + step, images)) for start in range(0, images, step)]


def _missing(rows: list[Row], kind: str, store: Store) -> dict[str, Row]:
    """One row for each measurement of a kind that has no record."""
    wanted = {row.keys[kind]: row for row in rows if kind in row.keys}
    return {key: row for key, row in wanted.items() if store.get(kind, key) is None}


def _attempt(kind: str, key: str, store: Store, measure: Callable[[], dict[str, Any]]) -> bool:
    """Record a measurement, or why there is none: a method that fails costs its own rows only."""
    try:
        value = measure()
    except UserError:
        raise
    except Exception as error:
        store.add(FAILED, f"{kind}/{key}", {"reason": _reason(error)})
        return False
    store.add(kind, key, value)
    return True


def _reason(error: Exception) -> str:
    """One line: what was raised, and where."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = "" if "site-packages" in where.filename else f" ({where.filename.rpartition('/')[2]}:{where.lineno})"
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0]}{place}"


def _count(rows: list[Row], model: Pretrained, prepared: Prepared, store: Store, progress: Progress) -> None:
    missing = _missing(rows, "macs", store)
    if not missing:
        return
    image = _sample(model, prepared, 1)
    for key, row in progress.track(missing.items(), description="MACs"):

        def count(row: Row = row) -> dict[str, Any]:
            macs = count_macs(put_together(row.cell, model), image)
            return {"total": macs.total, "method": macs.method, "ledger": asdict(macs.ledger)}

        _attempt("macs", key, store, count)


def _time(rows: list[Row], model: Pretrained, prepared: Prepared, store: Store, progress: Progress) -> None:
    missing = _missing(rows, "latency", store)
    if not missing:
        return
    pictures = _sample(model, prepared, max(row.cell.batch_size for row in missing.values()))
    for key, row in progress.track(missing.items(), description="latency"):

        def time(row: Row = row) -> dict[str, Any]:
            batch = pictures[: row.cell.batch_size]
            return asdict(measure_latency(model.vit, put_together(row.cell, model), batch, prepared.suite.seconds))

        _attempt("latency", key, store, time)


def _classify(
    rows: list[Row], model: Pretrained, prepared: Prepared, store: Store, progress: Progress
) -> Iterator[Unreadable]:
    """Decode each image once and show it to every method that has not seen it."""
    images = prepared.images
    wanted = {row.keys["accuracy"]: row for row in rows if "accuracy" in row.keys}
    if images is None or not wanted:
        return
    batch = prepared.suite.accuracy_batch
    spans = shards(len(images), batch)
    todo = [[key for key in wanted if store.get("accuracy", shard_key(key, span.start)) is None] for span in spans]
    first = next((number for number, keys in enumerate(todo) if keys), len(spans))
    if first == len(spans):
        return
    built = {key: put_together(wanted[key].cell, model) for key in {key for keys in todo for key in keys}}
    ids = image_ids(images.names)
    lost: list[Unreadable] = []
    decoded = batches(
        images,
        evaluation_transform(model.vit),
        batch_size=batch,
        workers=prepared.suite.workers,
        start=spans[first].start,
    )
    task = progress.add_task("accuracy", total=sum(len(keys) for keys in todo))
    for span, keys in zip(spans[first:], todo[first:], strict=True):
        stretch = list(islice(decoded, SHARD))
        lost += (image for _, unread in stretch for image in unread)
        check_unreadable(lost, len(images))
        seen = [part for part, _ in stretch]
        for key in [key for key in keys if key in built]:

            def classify(key: str = key, span: range = span, seen: list[Batch] = seen) -> dict[str, Any]:
                return {"outcomes": evaluate(built[key], seen, ids, span, images.classes)}

            if not _attempt("accuracy", shard_key(key, span.start), store, classify):
                del built[key]
            progress.advance(task)
    yield from lost


def _sample(model: Pretrained, prepared: Prepared, count: int) -> Tensor:
    """`count` images for the model (count, C, H, W): real ones where there are data, else noise from a fixed seed."""
    projection = model.vit.patch_embed.proj
    images = prepared.images
    if images is None:
        size = (count, projection.in_channels, *model.vit.patch_embed.img_size)
        return torch.randn(size, generator=torch.Generator().manual_seed(0)).to(projection.weight)
    few = images.head(min(count, len(images)))
    read = [part.images for part, _ in batches(few, evaluation_transform(model.vit), batch_size=32, workers=0)]
    pictures = torch.cat([part for part in read if len(part)])
    return pictures.repeat(-(-count // len(pictures)), 1, 1, 1)[:count].to(projection.weight)
