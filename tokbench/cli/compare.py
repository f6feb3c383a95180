"""`tokbench compare`: measure a suite's cells and show the table."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from tokbench.cli.arguments import schedule_of, split
from tokbench.cli.results import conclude
from tokbench.errors import UserError

if TYPE_CHECKING:
    from tokbench.run.prepare import Prepared


def compare(
    suite: Annotated[str | None, typer.Argument(help="A suite of tokbench.toml; default: the embedded one.")] = None,
    models: Annotated[str | None, typer.Option(help="timm's ViTs, or digits_deit.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="name or name(parameter=value,...); 'all' takes every one.")
    ] = None,
    keep: Annotated[str | None, typer.Option(help="Fractions of the patch tokens that a reduction leaves.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Such as stages(at=3-6-9), every_block(r=13), budget(0.7), published.")
    ] = None,
    at: Annotated[str | None, typer.Option(help="Depths: --at 3,6,9 is short for stages(at=3-6-9).")] = None,
    site: Annotated[str | None, typer.Option(help="before_block, after_attention or after_block.")] = None,
    data: Annotated[str | None, typer.Option(help="A folder by synset id, a .tar, a .parquet or hfds/NAME.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="A .safetensors or .pth for the model, or random; else timm's hub.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Measure accuracy on so many images.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    dtype: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    batch_size: Annotated[str | None, typer.Option(help="Of the timed batches.")] = None,
    mode: Annotated[str | None, typer.Option(help="Of eager,compile,cudagraph: how timed models run.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Of timing a row at most.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of the CPU for computing.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that decode images.")] = None,
    cache: Annotated[str | None, typer.Option(help="A folder that keeps preprocessed images for the next run.")] = None,
    memory: Annotated[int | None, typer.Option(help="MiB of waiting images, and of shared tokens, at most.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Of the stochastic methods, as 0,1,2.")] = None,
    only: Annotated[str | None, typer.Option(help="Of macs,latency,accuracy.")] = None,
    analyse: Annotated[
        bool, typer.Option("--analyse", help="Measure redundancy too: spectra, and what methods reconstruct.")
    ] = False,
    plugins: Annotated[str | None, typer.Option(help="Files or folders with methods of your own.")] = None,
    ray: Annotated[
        str | None, typer.Option(help="Run on a Ray cluster: its HOST:PORT, auto, or local for this machine's GPUs.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="2/4: the second of four parts; tokbench merge joins what machines measured.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A tokbench.toml; default: the current folder's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where results go; default: results/SUITE.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the cells and the estimated time, and stop.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what was measured before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON and nothing else.")] = False,
) -> None:
    """Measure compute, time and accuracy of methods in models. Lists are comma-separated.

    Running the same command again does only what is missing.

    Example: tokbench compare imagenet --data /data/val --models deit_small_patch16_224 --keep 0.9,0.7
    """
    from tokbench.distributed.ray_cluster import check_address, connected

    if ray is not None:
        check_address(ray)
    if ray is not None and part is not None:
        raise UserError("--part is for machines that do not know of each other: leave it or --ray out")

    from tokbench.comparison import carry_out, plan_comparison, warnings_about
    from tokbench.config import load_config
    from tokbench.report.terminal.live import LiveView
    from tokbench.schedule import takes_keep

    settings = load_config(config)
    name = suite or settings.default_suite
    given = {
        "models": split(models),
        "methods": split(methods),
        "keep": split(keep),
        "schedule": schedule_of(schedule, at),
        "site": site,
        "data": data,
        "weights": weights,
        "limit": limit,
        "device": device,
        "dtype": dtype,
        "batch_size": split(batch_size),
        "mode": split(mode),
        "seconds": seconds,
        "threads": threads,
        "workers": workers,
        "cache": cache,
        "memory": memory,
        "seeds": split(seeds),
        "only": split(only),
        "analyse": analyse or None,
    }
    chosen = settings.suite(name, {key: value for key, value in given.items() if value is not None})
    if keep is not None and not takes_keep(chosen.schedule):
        raise UserError(f"schedule '{chosen.schedule}' says itself how much stays: leave --keep out")
    own_methods = [Path(path) for path in split(plugins) or ()]
    with nullcontext() if ray is None or plan else connected(ray):
        with _progress(as_json) as progress:
            progress.add_task("loading models and data", total=None)
            comparison = plan_comparison(chosen, settings, own_methods)
        for one in comparison.broken:
            typer.echo(f"tokbench: broken plugin {one.source}: {one.reason}", err=True)
        if plan:
            _show_plan(comparison.prepared, as_json)
            return
        terminal = Console(stderr=True)
        results = carry_out(
            comparison,
            out or Path("results") / name,
            fresh=fresh,
            part=part,
            on_ray=ray is not None,
            watch=lambda results: LiveView(results, terminal, disable=as_json or not terminal.is_interactive),
        )
    for warning in warnings_about(results):
        typer.echo(f"tokbench: {warning}", err=True)
    conclude(results, as_json)


def _progress(silent: bool) -> Progress:
    """A bar on the terminal that goes when the work is done; nothing where nobody watches."""
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=silent or not console.is_terminal)


def _show_plan(prepared: Prepared, as_json: bool) -> None:
    from tokbench.report.terminal.table import open_console
    from tokbench.results.plan import plan_json
    from tokbench.run.estimate import estimate_seconds
    from tokbench.run.plan import plan_of

    rows = plan_json(plan_of(prepared))["rows"]
    seconds = estimate_seconds(prepared)
    if as_json:
        typer.echo(json.dumps({"cells": rows, "estimated_seconds": round(seconds)}, indent=2))
        return
    shown = ("model", "method", "params", "schedule", "keep", "site", "seed", "batch_size", "skipped")
    table = Table(*shown, box=None)
    for row in rows:
        table.add_row(*("" if row[name] is None else escape(str(row[name])) for name in shown))
    console = open_console()
    console.print(table)
    console.print(f"{len(rows)} cells, about {timedelta(seconds=round(seconds))} on {prepared.device.type}")
