"""`tokbench merge`: join the results of one comparison that several machines measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokbench.cli.options import AsJson
from tokbench.cli.results import conclude


def merge(
    directories: Annotated[
        list[Path],
        typer.Argument(metavar="DIR", help="Directories written by tokbench compare, finished or not."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where to write; results that are already there are included.")
    ],
    as_json: AsJson = False,
) -> None:
    """Join the results of several machines.

    Each machine measured a part of one comparison: other models, methods or keeps, or other images with --part. It is
    safe to run the same command again. tokbench compare with --out on the joined directory measures what is missing.

    Example: tokbench merge results/machine-1 results/machine-2 --out results/imagenet
    """
    from tokbench.results.merge import merge as join

    conclude(join(directories, out), as_json)
