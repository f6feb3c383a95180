"""The timed part of a run: sessions of paired times, and the memory that each row takes.

A session is what is timed in one go at one batch size and mode. It begins with the plain model against itself, so that
every verdict knows how far identical programs differed here and then.
"""

from __future__ import annotations

import tempfile
import uuid
from concurrent.futures import Executor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from tokbench.compare.plan import Cell
from tokbench.compare.prepare import Prepared, Row, put_together
from tokbench.compare.records import FAILED, NOISE, announced, attempt, missing
from tokbench.compare.sample_images import pictures_for, sample, shown
from tokbench.measure.gpu import condition
from tokbench.measure.latency import Forward, measure_floor, measure_latency
from tokbench.measure.memory import cpu_peak_mib, cuda_peak_mib, measuring_processes
from tokbench.measure.modes import forget_compiled, in_mode
from tokbench.names import PLAIN, Mode
from tokbench.registry import load_file, method_class, source_file
from tokbench.results.store import Store
from tokbench.vit.models import Pretrained

MEMORY = "memory"


def time(rows: list[Row], model: Pretrained, prepared: Prepared, store: Store, progress: Progress) -> None:
    """Time what has no record yet.

    Args:
        rows: Of one model.
        model: On its device.
        prepared: The plan.
        store: Where it goes.
        progress: Shows how far it is.
    """
    untimed = missing(rows, "latency", store)
    if not untimed:
        return
    pictures = pictures_for([row.cell for row in untimed.values()], model, prepared.images)
    for batch_size, mode in dict.fromkeys((row.cell.batch_size, row.cell.mode) for row in untimed.values()):
        session = uuid.uuid4().hex[:12]
        own = {key: row for key, row in untimed.items() if (row.cell.batch_size, row.cell.mode) == (batch_size, mode)}
        progress.add_task("noise floor", total=None)
        if attempt(NOISE, session, store, partial(_floor, model, mode, pictures[:batch_size], prepared)):
            for key, row in announced(own, "latency", progress):
                attempt("latency", key, store, partial(_latency, row, model, pictures, prepared, session))
        else:
            for key in own:
                store.add(FAILED, f"latency/{key}", store.get(FAILED, f"{NOISE}/{session}") or {})


def weigh(rows: list[Row], model: Pretrained, prepared: Prepared, store: Store, progress: Progress) -> None:
    """Measure the peak memory of what has no record of it yet; on a CPU of eager rows only.

    Args:
        rows: Of one model.
        model: On its device.
        prepared: The plan.
        store: Where it goes.
        progress: Shows how far it is.
    """
    unweighed = missing(rows, MEMORY, store)
    if not unweighed:
        return
    pictures = sample(model, prepared.images, max(row.cell.batch_size for row in unweighed.values()))
    waiting = announced(unweighed, MEMORY, progress)
    if prepared.device.type == "cuda":
        for key, row in waiting:
            attempt(MEMORY, key, store, partial(_cuda_memory, row.cell, model, pictures))
        return
    with tempfile.TemporaryDirectory() as folder, measuring_processes(preload=__name__) as processes:
        for key, row in waiting:
            saved = Path(folder) / f"{row.cell.batch_size}.pt"
            if not saved.is_file():
                torch.save((model.vit, pictures[: row.cell.batch_size].clone()), saved)
            attempt(MEMORY, key, store, partial(_cpu_memory, row.cell, saved, processes))


def _floor(model: Pretrained, mode: Mode, images: Tensor, prepared: Prepared) -> dict[str, Any]:
    forget_compiled()
    suite = prepared.suite
    blocks = measure_floor(in_mode(model.vit, mode, images), [images], suite.seconds, suite.precision)
    return {"blocks": [asdict(block) for block in blocks]}


def _latency(row: Row, model: Pretrained, pictures: Tensor, prepared: Prepared, session: str) -> dict[str, Any]:
    forget_compiled()
    suite, mode = prepared.suite, row.cell.mode
    batches = shown(row.cell, pictures)
    plain = in_mode(model.vit, mode, batches[0])
    other = in_mode(put_together(row.cell, model), mode, batches[0])
    before = condition(prepared.device)
    latency = measure_latency(plain, other, batches, suite.seconds, suite.precision)
    moments = [asdict(moment) for moment in (before, condition(prepared.device)) if moment]
    return {**asdict(latency), "session": session, "gpu": moments}


def _cuda_memory(cell: Cell, model: Pretrained, pictures: Tensor) -> dict[str, Any]:
    images = pictures[: cell.batch_size]
    return {"peak_mib": cuda_peak_mib(in_mode(put_together(cell, model), cell.mode, images), images)}


def _cpu_memory(cell: Cell, saved: Path, processes: Executor) -> dict[str, Any]:
    return {"peak_mib": cpu_peak_mib(processes, partial(_rebuild, saved, cell, _plugin(cell)), torch.get_num_threads())}


def _plugin(cell: Cell) -> Path | None:
    """The file that another process must load to know the cell's method."""
    return None if cell.variant.method == PLAIN else Path(source_file(method_class(cell.variant.method)))


def _rebuild(saved: Path, cell: Cell, plugin: Path | None) -> tuple[Forward, Tensor]:
    if plugin is not None:
        load_file(plugin)
    vit, images = torch.load(saved, weights_only=False)
    return put_together(cell, Pretrained(vit, identity="")), images
