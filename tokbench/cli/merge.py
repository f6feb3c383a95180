"""`tokbench merge`: directories that several machines measured of one comparison, joined into one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokbench.cli.results import conclude


def merge(
    directories: Annotated[list[Path], typer.Argument(help="What tokbench compare wrote, finished or not.")],
    out: Annotated[Path, typer.Option(help="Where the joined results go; what it holds already takes part.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON and nothing else.")] = False,
) -> None:
    """Join results of one comparison that were measured on several machines.

    Each ran a part of it: other models, methods or keeps, or other images with --part. The same command again does no
    harm, and tokbench compare with --out on the joined directory measures what is missing.

    Example: tokbench merge results/machine-1 results/machine-2 --out results/imagenet
    """
    from tokbench.results.merge import merge as join

    conclude(join(directories, out), as_json)
