"""Writes the output of a benchmark program to a file, headed by the command, the date, the machine and versions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from tokbench.files import write_atomically
from tokbench.measure.environment import describe

TRUST = Path(__file__).parents[1] / "results" / "trust"
SPEED = TRUST.with_name("speed")


def write_output(path: Path, lines: Iterable[str], packages: Sequence[str] = ("python", "torch", "tokbench")) -> None:
    """Print lines and write them to a file.

    Args:
        path: The file, named like the program.
        lines: The output.
        packages: The packages whose versions are stated.
    """
    machine = describe(torch.device("cpu"))
    versions = ", ".join(f"{package} {machine['versions'][package]}" for package in packages)
    spin = os.environ.get("GOMP_SPINCOUNT")  # tokbench's command sets it by default
    environment = f"GOMP_SPINCOUNT={spin} " if spin else ""
    head = (
        f"{environment}python benchmarks/{path.stem}.py, {machine['measured']}",
        f"{machine['device_name']}, {machine['cpus']} CPUs, {machine['threads']} threads; {versions}",
        "",
    )
    text = "\n".join([*head, *lines]) + "\n"
    print(text, end="")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda scratch: scratch.write_text(text, encoding="utf-8"))
