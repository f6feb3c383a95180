"""What a command prints when its results are complete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import pandas as pd


def conclude(table: pd.DataFrame, directory: Path, as_json: bool) -> None:
    """Print a table, with published numbers below it.

    Args:
        table: The rows, as `tokbench.results.table` makes them.
        directory: The results directory.
        as_json: Print the table as JSON and nothing else.

    Raises:
        typer.Exit: With status 1, if a row failed.
    """
    from tokbench.published.claims import beside
    from tokbench.report.terminal.published import render_claims
    from tokbench.report.terminal.table import open_console, render
    from tokbench.results.table import any_failed

    if as_json:
        typer.echo(table.to_json(orient="records", indent=2))
    else:
        console = open_console()
        render(table, console)
        render_claims(beside(table), console)
        typer.echo(f"table.parquet, table.csv and the raw records: {directory}")
    if any_failed(table):
        raise typer.Exit(1)
