"""`tokbench report`: write a results directory as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokbench.cli.options import ResultsDirectory, VersusList, parse_list
from tokbench.cli.output import write_text

FILE_NAME = "report.html"
MIB = 2**20


def report(
    directory: ResultsDirectory,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The HTML file to write; default: DIR/report.html.")
    ] = None,
    versus: VersusList = None,
) -> None:
    """Write a results directory as one HTML page.

    The page needs no other file and no network. Images in the directory (tokbench show --out DIR/tokens.png) are
    included.

    Example: tokbench report results/imagenet --out imagenet.html
    """
    from tokbench.report.html.page import render_page
    from tokbench.results import load

    text = render_page(load(directory), parse_list("versus", versus or ""))
    file = out or directory / FILE_NAME
    write_text(file, text, errors="replace")  # paths on the page may not be valid UTF-8
    typer.echo(f"{file}: {file.stat().st_size / MIB:.1f} MiB")
