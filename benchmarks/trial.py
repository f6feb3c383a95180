"""What the programs about timing share: a model with a method in it, and a busy neighbour."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tokbench.run.sample_images import sample
from torch import Tensor

from tokbench.downsampler import Downsampler
from tokbench.names import EMBEDDED_MODEL
from tokbench.schedule import Stages
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import load_model

BATCH = 8  # of digits: small, so that a minute holds many rounds
KEEP = 0.7


def digits_with(method: Downsampler) -> tuple[DownsampledViT, Tensor]:
    """The embedded model with a method in it, and a batch (B, C, H, W) of noise."""
    pretrained = load_model(EMBEDDED_MODEL)
    return DownsampledViT(pretrained.vit, method, Stages(KEEP)).eval(), sample(pretrained, None, BATCH)


@contextmanager
def busy_neighbour(period: float = 0.2) -> Iterator[None]:
    """Another process that loads a core half of the time.

    Args:
        period: Seconds of one turn of working and sleeping.
    """
    neighbour = multiprocessing.get_context("spawn").Process(target=_work_half, args=(period,), daemon=True)
    neighbour.start()
    try:
        yield
    finally:
        neighbour.terminate()
        neighbour.join()


def _work_half(period: float) -> None:
    while True:
        end = time.perf_counter() + period / 2
        while time.perf_counter() < end:
            pass
        time.sleep(period / 2)
