"""`tokbench report`: a results directory as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokbench.errors import UserError

FILE_NAME = "report.html"
MIB = 2**20


def report(
    directory: Annotated[Path, typer.Argument(help="What tokbench compare wrote, finished or not.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file to write; default: DIR/report.html.")] = None,
) -> None:
    """Write one HTML page of a results directory. It needs no other file and no network.

    The pictures in the directory (tokbench show --out DIR/tokens.png) stand on it too.

    Example: tokbench report results/imagenet --out imagenet.html
    """
    from tokbench.files import write_atomically
    from tokbench.report.html.page import render_page
    from tokbench.results import Results

    text = render_page(Results(directory))
    file = out or directory / FILE_NAME
    try:
        # A path that is no UTF-8 shall not cost the page.
        write_atomically(file, lambda path: path.write_text(text, encoding="utf-8", errors="replace"))
    except OSError as error:
        raise UserError(f"cannot write {file} ({error.strerror}): choose another file with --out FILE.html") from None
    typer.echo(f"{file}: {file.stat().st_size / MIB:.1f} MiB")
