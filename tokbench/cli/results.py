"""What a command prints when its results are complete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from tokbench.results import Results


def conclude(results: Results, as_json: bool) -> None:
    """Print the table, with published numbers below it.

    Args:
        results: The results directory.
        as_json: Print the table as JSON and nothing else.

    Raises:
        typer.Exit: With status 1, if a row failed.
    """
    from tokbench.published.claims import beside
    from tokbench.report.envelope import print_envelopes
    from tokbench.report.terminal.published import render_claims
    from tokbench.report.terminal.table import open_console, render
    from tokbench.results.table import any_failed

    if as_json:
        typer.echo(results.table.to_json(orient="records", indent=2))
    else:
        console = open_console()
        render(results.table, console)
        print_envelopes(results, console)
        render_claims(beside(results.table, results.plan), console)
        typer.echo(f"table.parquet, table.csv and the raw records: {_short(results.directory)}")
    if any_failed(results.table):
        raise typer.Exit(1)


def _short(directory: Path) -> Path:
    """A path as seen from the current folder."""
    here = Path.cwd()
    return directory.relative_to(here) if directory.is_relative_to(here) else directory
