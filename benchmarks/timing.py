"""Shared by the programs about timing: a model with a method, and a process that causes load."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from tokbench.downsampler import Downsampler
from tokbench.measure.sample_images import sample_images
from tokbench.names import EMBEDDED_MODELS
from tokbench.schedule import Stages
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import load_model

BATCH = 8  # digits; small, so that a minute is enough for many rounds
KEEP = 0.7


def digits_with(method: Downsampler) -> tuple[DownsampledViT, Tensor]:
    """The embedded model with a method, and a batch (B, C, H, W) of noise."""
    vit = load_model(EMBEDDED_MODELS[0]).vit
    return DownsampledViT(vit, method, Stages(KEEP)).eval(), sample_images(vit, None, BATCH)


def built(model: DownsampledViT) -> Callable[[], DownsampledViT]:
    """What `compare_versions` builds a version with, where there is one already."""
    return lambda: model


@contextmanager
def busy_process(period: float = 0.2) -> Iterator[None]:
    """Run another process that loads a core half of the time.

    Args:
        period: Seconds of one cycle of working and sleeping.
    """
    process = multiprocessing.get_context("spawn").Process(target=_work_half_the_time, args=(period,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _work_half_the_time(period: float) -> None:
    while True:
        end = time.perf_counter() + period / 2
        while time.perf_counter() < end:
            pass
        time.sleep(period / 2)
