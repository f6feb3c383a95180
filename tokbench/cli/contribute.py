"""`tokbench contribute`: hand results of another machine to the project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokbench.cli.options import ResultsDirectory

if TYPE_CHECKING:
    from tokbench.contribute.problem import Verdict


def contribute(
    directory: ResultsDirectory,
    results: Annotated[Path, typer.Option(metavar="DIR", help="The folder of results in a clone of tokbench.")] = Path(
        "results"
    ),
    in_place: Annotated[
        bool, typer.Option("--check", help="Check results that are already in the clone, and copy nothing.")
    ] = False,
) -> None:
    """Check results and copy them into a clone of tokbench, for a pull request.

    The results must be complete and unchanged, and hold no private paths or names. The exit code is 1 if there is a
    problem; each is printed on a line of its own, with its name.

    Example: tokbench contribute results/embedded
    """
    from tokbench.contribute.contribute import check, contribute

    if in_place:
        verdict = check(directory, results)
        _print(verdict)
        typer.echo(f"{directory}: {_count(verdict)}")
        return _exit(verdict)
    place, verdict = contribute(directory, results)
    _print(verdict)
    if place is None:
        typer.echo(f"{directory}: {_count(verdict)}; nothing was copied")
        return _exit(verdict)
    typer.echo(f"{place}: copied; commit this folder and open a pull request")
    return None


def _print(verdict: Verdict) -> None:
    from tokbench.errors import printable

    for problem in verdict.problems:
        typer.echo(printable(str(problem)))
    for note in verdict.notes:
        typer.echo(printable(f"not checked: {note}"))


def _count(verdict: Verdict) -> str:
    number = len(verdict.problems)
    return "no problem" if not number else f"{number} {'problem' if number == 1 else 'problems'}"


def _exit(verdict: Verdict) -> None:
    if verdict.problems:
        raise typer.Exit(1)
