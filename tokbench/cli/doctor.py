"""`tokbench doctor`: what is this machine, how noisy is it, what is missing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tokbench.doctor.machine import Finding

SIGNS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "problem": ("✗", "red")}
NAME_WIDTH = 11


def doctor(
    data: Annotated[str | None, typer.Option(help="Images to look at, as tokbench compare --data takes them.")] = None,
    out: Annotated[Path, typer.Option(help="Where results would go.")] = Path("results"),
    config: Annotated[Path | None, typer.Option(help="A tokbench.toml; default: the current folder's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of all findings.")] = False,
) -> None:
    """Say what this machine is, what can be measured on it and what is missing; takes a few seconds.

    The exit code is 1 where there is a problem. Notes are none.

    Example: tokbench doctor --data /data/imagenet/val
    """
    from tokbench.doctor.examine import examine
    from tokbench.report.terminal.table import open_console

    console = open_console()
    found: list[Finding] = []
    for finding in examine(data, out, config):
        found.append(finding)
        if not as_json:
            _show(finding, console)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in found], indent=2))
    if any(finding.status == "problem" for finding in found):
        raise typer.Exit(1)


def _show(finding: Finding, console: Console) -> None:
    """One finding: folded under its own name on a terminal, one line in a pipe, so that grep finds all of it."""
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
