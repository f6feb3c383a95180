"""The command line: one short module a command, for parsing and messages only.

The commands import what they need when they run, so that `tokbench --help` does not wait for torch.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import typer
from typer.main import get_command

from tokbench.cli.check import check
from tokbench.cli.compare import compare
from tokbench.cli.doctor import doctor
from tokbench.cli.export import export
from tokbench.cli.listing import listing
from tokbench.cli.merge import merge
from tokbench.cli.new import new
from tokbench.cli.plot import plot
from tokbench.cli.report import report
from tokbench.cli.show import show
from tokbench.cli.verify import verify
from tokbench.errors import UserError

MISUSE = 2
INTERRUPTED = 130  # what shells report for Ctrl-C

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(compare)
app.command(name="list")(listing)
app.command()(new)
app.command()(verify)
app.command()(merge)
app.command()(check)
app.command()(report)
app.command()(plot)
app.command()(show)
app.command()(export)
app.command()(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tokbench {installed_version('tokbench')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """How much accuracy does a way of dropping tokens keep, for how much less compute and time?"""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run a command; the user's mistakes are told in one line."""
    # timm scripts a few functions at import, which new versions of torch complain of.
    warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=DeprecationWarning)
    # GNU's OpenMP lets threads that wait for each other spin for milliseconds. Where a neighbour has taken a core the
    # spinning takes the rest: 30,000 turns cost nothing on a quiet machine and keep a busy one usable.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    # The processes that measure memory import it too.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:`torch.jit:FutureWarning,ignore:`torch.jit:DeprecationWarning")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a pipe that takes ASCII only shall get its table
    # click's class, or typer's own copy of it: that differs from version to version.
    usage_error: Any = typer.BadParameter.__base__
    command = get_command(app)
    try:
        code = command.main(prog_name="tokbench", standalone_mode=False)
    except UserError as error:
        code = _misuse(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except usage_error as error:
        code = _misuse(error.format_message())
    if code == INTERRUPTED:
        typer.echo("tokbench: stopped; what was measured is kept, and the same command goes on from there", err=True)
    sys.exit(code or 0)


def _misuse(message: str) -> int:
    typer.echo(f"tokbench: {' '.join(message.split())}", err=True)
    return MISUSE
