"""What a command prints when its results are complete."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from tokbench.results import Results


def conclude(results: Results, as_json: bool, versus: Sequence[str] = ()) -> None:
    """Print the table, with published numbers and comparisons with single methods below it.

    Args:
        results: The results directory.
        as_json: Print the table as JSON and nothing else; with `versus`, an object of `table` and `versus`.
        versus: Methods that all others are compared with.

    Raises:
        typer.Exit: With status 1, if a row failed.
    """
    from tokbench.published.claims import beside
    from tokbench.report.envelope import print_envelopes
    from tokbench.report.terminal.published import render_claims
    from tokbench.report.terminal.table import open_console, render
    from tokbench.report.terminal.versus import render_versus
    from tokbench.results.table import any_failed

    if as_json:
        compared = results.versus(*versus) if versus else None
        table = results.table.to_json(orient="records", indent=2)
        others = None if compared is None else compared.to_json(orient="records", indent=2)
        typer.echo(table if others is None else f'{{"table": {table}, "versus": {others}}}')
    else:
        console = open_console()
        render(results.table, console)
        print_envelopes(results, console)
        render_claims(beside(results.table, results.plan), console)
        if versus:
            console.print("")
            render_versus(results.versus(*versus), console)
            console.print("")
        typer.echo(f"table.parquet, table.csv and the raw records: {_short(results.directory)}")
    if any_failed(results.table):
        raise typer.Exit(1)


def _short(directory: Path) -> Path:
    """A path as seen from the current folder."""
    here = Path.cwd()
    return directory.relative_to(here) if directory.is_relative_to(here) else directory
