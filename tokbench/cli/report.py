"""`tokbench report`: write a results directory as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokbench.cli.options import ResultsDirectories, VersusList, parse_list
from tokbench.cli.output import warn, write_text

FILE_NAME = "report.html"
MIB = 2**20


def report(
    directories: ResultsDirectories,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The HTML file to write; default: DIR/report.html; of several, report.html."),
    ] = None,
    versus: VersusList = None,
) -> None:
    """Write a results directory, or several side by side, as one HTML page.

    The page needs no other file and no network. Images in the directory (tokbench show --out DIR/tokens.png) are
    included.

    Example: tokbench report results/imagenet --out imagenet.html

    Example: tokbench report results/laptop results/server --out machines.html
    """
    from tokbench.report.html.page import render_combined, render_page
    from tokbench.report.several import disagreement_warning
    from tokbench.results import combine, load

    against = parse_list("versus", versus or "")
    if len(directories) == 1:
        text, folder = render_page(load(directories[0]), against), directories[0]
    else:
        combined = combine([load(directory) for directory in directories])
        if warning := disagreement_warning(combined):
            warn(warning)
        text, folder = render_combined(combined, against), Path()
    file = out or folder / FILE_NAME
    write_text(file, text, errors="replace")  # paths on the page may not be valid UTF-8
    typer.echo(f"{file}: {file.stat().st_size / MIB:.1f} MiB")
