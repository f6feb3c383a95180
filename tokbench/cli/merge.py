"""`tokbench merge`: directories that several machines measured of one comparison, joined into one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
    from tokbench.claims import beside
    from tokbench.compare.merge import merge as join
    from tokbench.compare.table import any_failed
    from tokbench.report.claims import render_claims
    from tokbench.report.terminal import open_console, render

    table = join(directories, out)
    if as_json:
        typer.echo(table.to_json(orient="records", indent=2))
    else:
        console = open_console()
        render(table, console)
        render_claims(beside(table), console)
        typer.echo(f"table.parquet, table.csv and the rest: {out}")
    if any_failed(table):
        raise typer.Exit(1)
