"""`tokbench plot`: a comparison as a figure or a table for a paper."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokbench.cli.arguments import split
from tokbench.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame


class Axis(StrEnum):
    """What stands across."""

    GMACS = "gmacs"
    LATENCY = "latency_ms"


def plot(
    directory: Annotated[Path, typer.Argument(help="What tokbench compare wrote, finished or not.")],
    x: Annotated[Axis, typer.Option(help="What top-1 is drawn against.")] = Axis.GMACS,
    out: Annotated[Path | None, typer.Option(help="A .pdf, .svg or .png; default: DIR/gmacs.pdf, as --x says.")] = None,
    width: Annotated[float, typer.Option(min=2, max=40, help="Inches: 3.3 is a column of two, 6.8 a page.")] = 3.3,
    methods: Annotated[str | None, typer.Option(help="Only these, and the plain model.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Of the times; default: the largest.")] = None,
    mode: Annotated[str | None, typer.Option(help="Of the times: eager, compile or cudagraph.")] = None,
    latex: Annotated[bool, typer.Option("--latex", help="The table in LaTeX, printed or written to a .tex.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The table in Markdown, printed or written to a .md.")
    ] = False,
) -> None:
    """Draw top-1 against compute or time for a paper, or write the table.

    Example: tokbench plot results/imagenet --x gmacs --methods tome,evit --out fig.pdf

    Example: tokbench plot results/imagenet --latex --out table.tex
    """
    from tokbench.report.paper.rows import select_rows
    from tokbench.results import Results

    if latex and markdown:
        raise UserError("--latex and --markdown are two tables: ask for one at a time")
    if latex or markdown:
        from tokbench.report.paper import table as paper_table

        _check(out, (".tex",) if latex else (".md",))
        rows = select_rows(Results(directory).table, split(methods), batch_size, mode)
        _write(paper_table.latex(rows) if latex else paper_table.markdown(rows), out)
    else:
        from tokbench.report.paper.figure import ENDINGS

        _check(out, ENDINGS)
        rows = select_rows(Results(directory).table, split(methods), batch_size, mode)
        _draw(rows, x, width, out or directory / f"{x}.pdf")


def _check(out: Path | None, endings: tuple[str, ...]) -> None:
    """Before anything is read: a name that ends as what it is to hold."""
    if out is not None and out.suffix.lower() not in endings:
        raise UserError(f"cannot tell from {out} what to write: choose an ending of {', '.join(endings)} with --out")


def _draw(rows: DataFrame, x: Axis, width: float, out: Path) -> None:
    from tokbench.report.paper.figure import figure, save
    from tokbench.report.paper.rows import figure_points

    drawn = figure_points(rows, x)
    try:
        save(figure(drawn, x, width), out)
    except OSError as error:
        raise _unwritable(out, error) from None
    typer.echo(f"{out}: {len(drawn)} points", err=True)


def _write(text: str, out: Path | None) -> None:
    from tokbench.files import write_atomically

    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        write_atomically(out, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise _unwritable(out, error) from None


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {out} ({error.strerror}): choose another file with --out")
