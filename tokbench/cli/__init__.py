"""The command line: one short module per command, for parsing and messages only.

Commands import what they need when they run, so that `tokbench --help` does not wait for torch.
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
from tokbench.cli.contribute import contribute
from tokbench.cli.doctor import doctor
from tokbench.cli.export import export
from tokbench.cli.export_model import export_model
from tokbench.cli.finetune import finetune
from tokbench.cli.listing import listing
from tokbench.cli.merge import merge
from tokbench.cli.new import new
from tokbench.cli.options import GroupedCommand
from tokbench.cli.output import check_characters, drop_output, flush_output, problem_with_file, warn
from tokbench.cli.plot import plot
from tokbench.cli.report import report
from tokbench.cli.show import show
from tokbench.cli.spaces import with_commas
from tokbench.cli.verify import verify
from tokbench.cli.versus import versus
from tokbench.errors import UserError
from tokbench.isolation import distinguish_ctrl_c
from tokbench.supervisor import can_supervise, supervise

USAGE_ERROR = 2  # as click's own
INTERRUPTED = 130  # what shells report for Ctrl-C

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command(cls=GroupedCommand)(compare)
app.command(cls=GroupedCommand)(finetune)
app.command(name="list")(listing)
app.command()(new)
app.command()(verify)
app.command()(merge)
app.command(cls=GroupedCommand)(check)
app.command()(versus)
app.command()(report)
app.command()(plot)
app.command()(show)
app.command()(export)
app.command()(contribute)
app.command(cls=GroupedCommand)(export_model)
app.command()(doctor)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"tokbench {installed_version('tokbench')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Benchmark token-reduction methods for vision transformers: accuracy, compute and latency."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run a command; a user error prints one line."""
    # timm scripts a few functions at import, which new versions of torch warn about.
    warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=DeprecationWarning)
    # With GNU OpenMP, threads that wait for each other spin for milliseconds. If another process occupies a core, the
    # spinning takes up the others. 30,000 iterations cost nothing on an idle machine and keep a busy one usable.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    # The processes that measure memory import timm too.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:`torch.jit:FutureWarning,ignore:`torch.jit:DeprecationWarning")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII pipe gets ? for other characters, not an error
    with distinguish_ctrl_c():
        code = supervise(_run_command, warn) if _runs_methods() and can_supervise() else _run_command()
    sys.exit(code)


def _runs_methods() -> bool:
    """Whether the command runs methods, which may end the process."""
    return bool({"compare", "verify", "check", "show", "list", "export-model"} & set(sys.argv[1:3]))


def _run_command() -> int:
    """Run the command; an error that the user can fix prints one line."""
    arguments = sys.argv[1:]
    # click's class, or typer's own copy of it, depending on the version.
    click_error: Any = typer.BadParameter.__base__
    command = get_command(app)
    try:
        check_characters(arguments)
        code = command.main(arguments, prog_name="tokbench", standalone_mode=False)
        flush_output()
    except UserError as error:
        message = str(error)
    except (KeyboardInterrupt, typer.Abort):
        return _stopped()
    except click_error as error:
        message = error.format_message()
    except MemoryError:
        message = "out of memory: use smaller batches, fewer workers, or --memory"
    except BrokenPipeError:
        drop_output()
        return 1
    except OSError as error:
        if (problem := problem_with_file(error)) is None:
            raise
        message = problem
    else:
        return _stopped() if code == INTERRUPTED else code or 0  # some versions of typer return it
    warn(with_commas(command, arguments, message) or message)
    return USAGE_ERROR


def _stopped() -> int:
    warn("stopped; finished measurements are kept, run the same command to resume")
    return INTERRUPTED
