"""What the programs about timing share: a model with a method in it, a busy neighbour, and where output goes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from tokbench.backbone import DownsampledViT
from tokbench.compare.pictures import sample
from tokbench.downsampler import Downsampler
from tokbench.measure.environment import describe
from tokbench.models import EMBEDDED_MODEL, load_model
from tokbench.schedule import Stages
from tokbench.store import write_atomically

OUT = Path(__file__).parents[1] / "results" / "trust"

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


def keep(name: str, lines: Iterable[str]) -> None:
    """Print lines and keep them in results/trust, below the machine and the date."""
    machine = describe(torch.device("cpu"))
    versions = ", ".join(f"{package} {machine['versions'][package]}" for package in ("python", "torch", "tokbench"))
    spin = os.environ.get("GOMP_SPINCOUNT")  # as the command line sets it, where nothing else is said
    spinning = f"GOMP_SPINCOUNT={spin} " if spin else ""
    head = (
        f"{spinning}python benchmarks/{name}.py, {machine['measured']}",
        f"{machine['device_name']}, {machine['cpus']} CPUs, {machine['threads']} threads; {versions}",
        "",
    )
    text = "\n".join([*head, *lines]) + "\n"
    print(text, end="")
    OUT.mkdir(parents=True, exist_ok=True)
    write_atomically(OUT / f"{name}.txt", lambda path: path.write_text(text, encoding="utf-8"))


def _work_half(period: float) -> None:
    while True:
        end = time.perf_counter() + period / 2
        while time.perf_counter() < end:
            pass
        time.sleep(period / 2)
