"""`tokbench plot`: a figure or a table for a paper."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokbench.cli.options import ResultsDirectories, finite, parse_list
from tokbench.cli.output import check_ending, warn, write_text, writing
from tokbench.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame


class Axis(StrEnum):
    """The x-axis."""

    GMACS = "gmacs"
    LATENCY = "latency_ms"
    SPEEDUP = "speedup"


def plot(
    directories: ResultsDirectories,
    x: Annotated[Axis, typer.Option(help="What to draw top-1 against.")] = Axis.GMACS,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .pdf, .svg or .png; default: DIR/X.pdf, of several X.pdf."),
    ] = None,
    width: Annotated[
        float,
        typer.Option(
            min=2,
            max=40,
            callback=finite,
            metavar="FLOAT",
            help="Width in inches; 3.3 fills a column of two, 6.8 a whole page.",
        ),
    ] = 3.3,
    methods: Annotated[
        str | None, typer.Option(metavar="LIST", help="Only these methods; the plain model is always shown.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Only rows of this schedule, as in 'stages(at=3-6-9)' or budget."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="INT", help="Show times of this batch size; default: the largest.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Show times of this mode: eager, compile or cudagraph.")
    ] = None,
    latex: Annotated[bool, typer.Option("--latex", help="Print a LaTeX table, or write it to a .tex file.")] = False,
    caption: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the LaTeX table shows; the signs are explained after it.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="TEXT", help="The LaTeX table's label.")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table, or write it to a .md file.")
    ] = False,
) -> None:
    """Draw a figure or write a table for a paper.

    The figure shows top-1 accuracy against compute, latency or speedup. Of several directories, each curve is named
    after its run, and times are speedups over the same machine's plain model.

    Example: tokbench plot results/imagenet --x gmacs --methods tome,evit --out fig.pdf

    Example: tokbench plot results/imagenet --latex --out table.tex
    """
    from tokbench.report.paper.rows import select_rows

    if latex and markdown:
        raise UserError("give --latex or --markdown, one at a time")
    if (caption or label) and not latex:
        raise UserError("--caption and --label are of a LaTeX table: add --latex")
    if len(directories) > 1 and x is Axis.LATENCY:
        raise UserError("--x latency_ms: times of several runs cannot be compared; use --x speedup, or one directory")
    only = None if methods is None else list(parse_list("methods", methods))
    if latex or markdown:
        from tokbench.report.paper import table as paper_table

        check_ending(out, (".tex",) if latex else (".md",))
        rows = select_rows(_table(directories), only, batch_size, mode, schedule)
        _print_or_write(
            paper_table.latex(rows, caption or "", label or "") if latex else paper_table.markdown(rows), out
        )
    else:
        from tokbench.report.paper.figure import ENDINGS

        check_ending(out, ENDINGS)
        folder = directories[0] if len(directories) == 1 else Path()
        rows = select_rows(_table(directories), only, batch_size, mode, schedule)
        _draw(rows, x, width, out or folder / f"{x}.pdf")


def _table(directories: list[Path]) -> DataFrame:
    """The rows of one run; or of several, without times, and with a warning where they disagree."""
    from tokbench.report.several import disagreement_warning
    from tokbench.results import combine, load
    from tokbench.results.several import without_times

    runs = [load(directory) for directory in directories]
    if len(runs) == 1:
        return runs[0].table
    combined = combine(runs)
    if warning := disagreement_warning(combined):
        warn(warning)
    return without_times(combined.table)


def _draw(rows: DataFrame, x: Axis, width: float, out: Path) -> None:
    from tokbench.report.marks import ON_FRONT
    from tokbench.report.paper.figure import figure, save
    from tokbench.report.paper.rows import figure_points

    drawn = figure_points(rows, x)
    with writing(out):
        save(figure(drawn, x, width), out)
    typer.echo(f"{out}: {len(drawn)} points", err=True)
    if drawn["front"].any():
        typer.echo(f"Pareto: {ON_FRONT[x]}", err=True)


def _print_or_write(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)
