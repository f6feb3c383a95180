"""How long a plan will take, from one batch through the plain model and a few decoded images."""

from __future__ import annotations

import math
import time

import torch

from tokbench.data.loading import batches
from tokbench.data.preprocessing import preprocessing_of
from tokbench.kinds import KINDS
from tokbench.kinds.base import Pace
from tokbench.measure.latency import measure_latency
from tokbench.measure.precision import DTYPES
from tokbench.run.prepare import Prepared

PROBE = 8  # images


def estimate_seconds(prepared: Prepared) -> float:
    """A rough time for everything in the plan, measured before or not."""
    return math.ceil(sum(_estimate(name, prepared) for name in prepared.models))


def _estimate(model: str, prepared: Prepared) -> float:
    pace = _pace(model, prepared)
    seconds = 0.0
    for name, kind in KINDS.items():
        wanted = {row.keys[name]: row for row in prepared.rows if row.cell.model == model and name in row.keys}
        seconds += kind.seconds(list(wanted.values()), pace)
    return seconds


def _pace(model: str, prepared: Prepared) -> Pace:
    suite = prepared.suite
    vit = prepared.models[model].vit.to(prepared.device, DTYPES[suite.dtype])
    projection = vit.patch_embed.proj
    image = torch.zeros(PROBE, projection.in_channels, *vit.patch_embed.img_size).to(projection.weight)
    image_s = min(measure_latency(vit, vit, [image], seconds=0.1, precision=0).base_s) / PROBE
    if prepared.images is None:
        return Pace(image_s, 0.0, 0, 0, suite)
    few = prepared.images.head(PROBE)
    start = time.perf_counter()
    list(batches(few, preprocessing_of(vit).pixels, batch_size=PROBE, workers=0))
    decode_s = (time.perf_counter() - start) / len(few) / max(1, suite.workers)
    train = 0 if prepared.train is None else len(prepared.train)
    return Pace(image_s, decode_s, len(prepared.images), train, suite)
