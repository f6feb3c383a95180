"""How long a plan will take, from one batch through the plain model and a few decoded images."""

from __future__ import annotations

import math
import time

import torch

from tokbench.compare.prepare import Prepared
from tokbench.compare.redundancy import IMAGES, RECONSTRUCTION, SPECTRA
from tokbench.compare.run import DTYPES
from tokbench.data.loading import batches
from tokbench.data.preprocessing import preprocessing_of
from tokbench.measure.latency import FLOOR_BLOCKS, WARM_UP, measure_latency
from tokbench.stats.times import MIN_ROUNDS
from tokbench.vit.models import Pretrained

TRACE_SECONDS = 0.5  # building a model with a method in it, and tracing it once
MEMORY_SECONDS = 0.5  # a process that loads a model and runs it once
PROBE = 8  # images


def estimate_seconds(prepared: Prepared) -> float:
    """A rough time for everything in the plan, measured before or not."""
    return sum(_estimate(name, model, prepared) for name, model in prepared.models.items())


def _estimate(name: str, model: Pretrained, prepared: Prepared) -> float:
    suite = prepared.suite
    rows = [row for row in prepared.rows if row.cell.model == name]
    vit = model.vit.to(prepared.device, DTYPES[suite.dtype])
    projection = vit.patch_embed.proj
    image = torch.zeros(PROBE, projection.in_channels, *vit.patch_embed.img_size).to(projection.weight)
    probe = measure_latency(vit, vit, [image], seconds=0.1, precision=0)
    per_image = min(probe.base_s) / PROBE
    seconds = TRACE_SECONDS * len({row.keys["macs"] for row in rows if "macs" in row.keys})
    timed = {row.keys["latency"]: (row.cell.batch_size, row.cell.mode) for row in rows if "latency" in row.keys}
    for batch, _ in [*timed.values(), *FLOOR_BLOCKS * list(set(timed.values()))]:
        round_seconds = 2 * batch * per_image
        seconds += max(suite.seconds, MIN_ROUNDS * round_seconds) + max(WARM_UP * suite.seconds, 2 * round_seconds)
    seconds += MEMORY_SECONDS * sum("memory" in row.keys for row in rows)
    analysed = {row.keys[kind] for row in rows for kind in (SPECTRA, RECONSTRUCTION) if kind in row.keys}
    if prepared.images is not None:
        seconds += len(analysed) * min(IMAGES, len(prepared.images)) * per_image
    answers = {row.keys["accuracy"] for row in rows if "accuracy" in row.keys}
    if prepared.images is not None and answers:
        few = prepared.images.head(PROBE)
        start = time.perf_counter()
        list(batches(few, preprocessing_of(vit).pixels, batch_size=PROBE, workers=0))
        decoding = (time.perf_counter() - start) / len(few) / max(1, suite.workers)
        seconds += len(prepared.images) * (decoding + len(answers) * per_image)
    return math.ceil(seconds)
