"""What the programs keep of a run: the output, below the command, the machine and the date."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from tokbench.files import write_atomically
from tokbench.measure.environment import describe

TRUST = Path(__file__).parents[1] / "results" / "trust"
SPEED = TRUST.with_name("speed")


def keep(path: Path, lines: Iterable[str], packages: Sequence[str] = ("python", "torch", "tokbench")) -> None:
    """Print lines and keep them.

    Args:
        path: The file, named like the program.
        lines: What it says.
        packages: Whose versions matter.
    """
    machine = describe(torch.device("cpu"))
    versions = ", ".join(f"{package} {machine['versions'][package]}" for package in packages)
    spin = os.environ.get("GOMP_SPINCOUNT")  # as the command line sets it, where nothing else is said
    spinning = f"GOMP_SPINCOUNT={spin} " if spin else ""
    head = (
        f"{spinning}python benchmarks/{path.stem}.py, {machine['measured']}",
        f"{machine['device_name']}, {machine['cpus']} CPUs, {machine['threads']} threads; {versions}",
        "",
    )
    text = "\n".join([*head, *lines]) + "\n"
    print(text, end="")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda scratch: scratch.write_text(text, encoding="utf-8"))
