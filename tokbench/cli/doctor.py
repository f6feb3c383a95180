"""`tokbench doctor`: examine the machine, its timing resolution and the installation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokbench.cli.options import AsJson, ConfigFile
from tokbench.cli.output import print_json

if TYPE_CHECKING:
    from tokbench.doctor.machine import Finding

SIGNS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "problem": ("✗", "red")}
NAME_WIDTH = 11


def doctor(
    data: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Images to check, as for tokbench compare --data.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The results directory to check.")] = Path("results"),
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine and the installation.

    Takes a few seconds. The exit code is 1 if there is a problem; notes are not problems.

    Example: tokbench doctor --data /data/imagenet/val
    """
    from tokbench.doctor.examine import examine
    from tokbench.report.terminal.table import open_console
    from tokbench.user_files import expanded

    if data is not None:
        expanded(data)  # refuses what can be no path
    console = open_console()
    found: list[Finding] = []
    for finding in examine(data, out, config):
        found.append(finding)
        if not as_json:
            _show(finding, console)
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in found])
    if any(finding.status == "problem" for finding in found):
        raise typer.Exit(1)


def _show(finding: Finding, console: Console) -> None:
    """Print a finding: wrapped beside its name on a terminal, on one line in a pipe, so that grep finds all of it."""
    sign, colour = SIGNS[finding.status]
    fix = f"→ {finding.fix}" if finding.fix else ""
    if not console.is_terminal:
        line = f"{sign} {finding.name:{NAME_WIDTH}} {finding.text} {fix}".rstrip()
        console.print(Text(line), soft_wrap=True)
        return
    text = Text.assemble(finding.text, ("\n" + fix, colour) if fix else "")
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(width=NAME_WIDTH)
    grid.add_column(overflow="fold")
    grid.add_row(Text(sign, colour), Text(finding.name, "bold"), text)
    console.print(grid)
