"""`tokbench compare`: measure the cells of a suite and show the table."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from tokbench.cli.options import (
    RUN,
    AsJson,
    ConfigFile,
    PluginList,
    Settings,
    VersusList,
    parse_list,
    plugin_paths,
    resolve_suite,
    suite_options,
)
from tokbench.cli.output import print_json, warn, warn_broken
from tokbench.cli.results import conclude
from tokbench.errors import UserError
from tokbench.isolation import limit_steps, remember, remembered
from tokbench.streams import stdout_to_stderr

if TYPE_CHECKING:
    from tokbench.run.prepare import Prepared


@suite_options()
def compare(
    *,
    suite: Annotated[
        str | None, typer.Argument(help="A suite of tokbench.toml; default: embedded, which needs no data.")
    ] = None,
    settings: Settings,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write results; default: results/SUITE.", rich_help_panel=RUN),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show the cells and the estimated time, then stop.", rich_help_panel=RUN)
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Measure everything again; old records are moved aside.", rich_help_panel=RUN),
    ] = False,
    retry: Annotated[
        bool,
        typer.Option("--retry", help="Also measure what has ended or hung a process before.", rich_help_panel=RUN),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Measure one of N parts, as in 2/4; tokbench merge joins the results.",
            rich_help_panel=RUN,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run on a Ray cluster: HOST:PORT, auto, or local for this machine's GPUs.",
            rich_help_panel=RUN,
        ),
    ] = None,
    versus: VersusList = None,
    plugins: PluginList = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure compute, latency and accuracy of methods.

    Lists are comma-separated. Options that are not given come from the suite, and the defaults shown apply where the
    suite sets none. Running the same command again measures only what is missing.

    Example: tokbench compare imagenet --data /data/val --models deit_small_patch16_224 --keep 0.9,0.7
    """
    from tokbench.distributed.ray_cluster import check_address, connected

    if ray is not None:
        check_address(ray)
    if versus is not None and part is not None:
        raise UserError("--versus needs all images: give it without --part, or to tokbench versus after merging")
    if ray is not None and part is not None:
        raise UserError("--part is for independent machines: give --part or --ray, not both")

    from tokbench.comparison import carry_out, plan_comparison
    from tokbench.config import load_config
    from tokbench.distributed.parts import share
    from tokbench.report.terminal.live import LiveView
    from tokbench.results.versus import check_versus
    from tokbench.run.estimate import estimate_seconds
    from tokbench.run.fine_tuned import choose_checkpoints
    from tokbench.run.plan import plan_of

    loaded = load_config(config)
    chosen = choose_checkpoints(resolve_suite(loaded, suite, settings), settings)
    directory = out or Path("results") / (suite or loaded.default_suite)
    limit_steps(chosen.timeout)
    with stdout_to_stderr(), nullcontext() if ray is None or plan else connected(ray):
        with _progress(as_json) as progress:
            task = progress.add_task("loading models and data", total=None)
            comparison = plan_comparison(
                chosen,
                loaded,
                plugin_paths(loaded, plugins),
                None if plan else directory,
                lambda text: progress.update(task, description=escape(text)),
            )
        others = parse_list("versus", versus or "")
        if others:
            check_versus(plan_of(comparison.prepared), others)
        if not remembered("broken"):
            warn_broken(comparison.broken)
            remember("broken", True)
        if plan:
            if part is not None:
                share(comparison.prepared, part)  # so that a wrong one is reported now
            seconds = estimate_seconds(comparison.prepared)
        else:
            terminal = Console(stderr=True)
            finished = carry_out(
                comparison,
                directory,
                fresh=fresh,
                retry=retry,
                part=part,
                on_ray=ray is not None,
                watch=lambda results: LiveView(results, terminal, disable=as_json or not terminal.is_interactive),
            )
    if plan:
        _show_plan(comparison.prepared, seconds, as_json)
        return
    for warning in finished.warnings:
        warn(warning)
    conclude(finished.results, as_json, others)


def _progress(silent: bool) -> Progress:
    """A progress bar that disappears at the end; nothing if standard error is not a terminal."""
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=silent or not console.is_terminal)


def _show_plan(prepared: Prepared, seconds: float, as_json: bool) -> None:
    from tokbench.report.terminal.table import open_console
    from tokbench.results.plan import plan_json
    from tokbench.run.plan import plan_of

    rows = plan_json(plan_of(prepared))["rows"]
    if as_json:
        print_json({"cells": rows, "estimated_seconds": round(seconds)})
        return
    shown = ("model", "method", "params", "schedule", "keep", "site", "seed", "batch_size", "skipped")
    table = Table(*shown, box=None)
    for row in rows:
        table.add_row(*("" if row[name] is None else escape(str(row[name])) for name in shown))
    console = open_console()
    console.print(table)
    console.print(f"{len(rows)} cells, about {timedelta(seconds=round(seconds))} on {prepared.device.type}")
