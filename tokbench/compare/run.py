"""Carrying a plan out: what has no record yet is measured, and each record is on the disk before the next begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from tokbench.compare.accuracy import classify
from tokbench.compare.prepare import Prepared, Row, put_together
from tokbench.compare.records import announced, attempt, missing
from tokbench.compare.redundancy import analyse
from tokbench.compare.sample_images import adaptive, pictures_for, shown
from tokbench.compare.timing import time, weigh
from tokbench.measure.macs import count_macs, spread_of_macs
from tokbench.results.store import Store
from tokbench.vit.models import Pretrained

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def run(prepared: Prepared, store: Store, progress: Progress, spans: Sequence[range] | None = None) -> None:
    """Measure everything that is missing.

    Args:
        prepared: What to measure.
        store: Where it goes.
        progress: Shows how far it is.
        spans: The stretches of the images that accuracies are measured on; None for all.

    Raises:
        UserError: More than 1 % of the images cannot be read, or the cache cannot be written.
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
    for model in prepared.models.values():
        model.vit.to(*place)
    classify(rows, prepared, store, progress, spans)
    for model in prepared.models.values():
        model.vit.to("cpu")


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
