"""`tokbench verify`: check methods against their contract."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from tokbench.cli.options import AsJson, ConfigFile, PluginList, plugin_paths
from tokbench.cli.output import print_json
from tokbench.errors import UserError
from tokbench.isolation import limit_steps, remember, remembered

if TYPE_CHECKING:
    from tokbench.conformance.result import Result

LIMIT_OF_A_CHECK = 120.0  # seconds; most take less than one

SIGNS = {"failed": "[red]✗[/red]", "reported": "[yellow]![/yellow]", "skipped": "[dim]-[/dim]", "passed": "✓"}


def verify(
    methods: Annotated[
        list[str] | None, typer.Argument(help="Methods, as tome or token_pooling(algorithm=kmeans), or files.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Check every method.")] = False,
    details: Annotated[bool, typer.Option("--verbose", "-v", help="List passed checks too.")] = False,
    plugins: PluginList = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Check methods against their contract; a few seconds each.

    Example: tokbench verify my_method.py
    """
    limit_steps(LIMIT_OF_A_CHECK)
    if every == bool(methods):
        raise UserError("give the methods or files to check, or --all")
    from tokbench.config import load_config
    from tokbench.conformance.checks import examine
    from tokbench.conformance.result import Result
    from tokbench.conformance.subject import find, find_all
    from tokbench.report.terminal.table import open_console

    paths = plugin_paths(load_config(config), plugins)
    subjects = find(methods, paths) if methods else find_all(paths)
    console = open_console()
    results: list[Result] = []
    for subject in subjects:
        before = remembered(subject.label)  # where a later method has ended the process
        if before is not None:
            results += [Result(**result) for result in before]
            continue
        found = list(examine(subject))
        remember(subject.label, [dataclasses.asdict(result) for result in found])
        results += found
        if not as_json:
            _show(console, subject.label, found, details=details)
    if as_json:
        print_json([dataclasses.asdict(result) for result in results])
    if any(result.outcome == "failed" for result in results):
        raise typer.Exit(1)


def _show(console: Console, label: str, found: list[Result], *, details: bool) -> None:
    """Print a line for a method, and one for each check that failed or reports something."""
    failed = sum(result.outcome == "failed" for result in found)
    sign = SIGNS["failed" if failed else "passed"]
    ran = sum(result.outcome != "skipped" for result in found)
    verdict = f"{failed} of {ran} checks failed" if failed else f"{ran} checks passed"
    console.print(f"{sign} {escape(label)}  {verdict}", soft_wrap=True)
    for result in found:
        if details or result.outcome in ("failed", "reported"):
            line = f"{SIGNS[result.outcome]} {result.check}  {escape(result.message)}".rstrip()
            if console.is_terminal:
                console.print(Padding.indent(line, 2))
            else:  # one line in a pipe, so that grep finds all of it
                console.print(f"  {line}", soft_wrap=True)
