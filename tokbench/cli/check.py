"""`tokbench check`: what became worse, for people and for CI."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokbench.errors import UserError

if TYPE_CHECKING:
    from tokbench.check.finding import Report
    from tokbench.config import Config

SUITE_SETTINGS = ("data", "weights", "limit", "device")
SUITE_LISTS = ("models", "methods", "keep")


def check(
    new: Annotated[Path | None, typer.Argument(help="A results directory.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="The results directory to hold it against.")] = None,
    require_times: Annotated[
        bool, typer.Option("--require-times", help="Invalid where times cannot be compared.")
    ] = False,
    against: Annotated[
        str | None, typer.Option(help="A commit: measure changed methods against what they were in it.")
    ] = None,
    suite: Annotated[str | None, typer.Option(help="With --against: what to measure on.")] = None,
    models: Annotated[str | None, typer.Option(help="With --against: timm's ViTs, or digits_deit.")] = None,
    methods: Annotated[str | None, typer.Option(help="With --against: only these, where they have changed.")] = None,
    keep: Annotated[str | None, typer.Option(help="With --against: fractions that a reduction leaves.")] = None,
    data: Annotated[str | None, typer.Option(help="With --against: a folder by synset id, a .tar, a .parquet.")] = None,
    weights: Annotated[str | None, typer.Option(help="With --against: a .safetensors or .pth for the model.")] = None,
    limit: Annotated[int | None, typer.Option(help="With --against: accuracy on so many images.")] = None,
    device: Annotated[str | None, typer.Option(help="With --against: auto, cpu, cuda or cuda:N.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.01, help="With --against: of timing a row at most.")] = None,
    plugins: Annotated[str | None, typer.Option(help="With --against: files or folders with your methods.")] = None,
    config: Annotated[Path | None, typer.Option(help="A tokbench.toml; default: the current folder's.")] = None,
    github: Annotated[bool, typer.Option("--github", help="Write GitHub's step summary and annotations.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON and nothing else.")] = False,
) -> None:
    """Tell what became worse: between two results, or between a commit's methods and yours.

    Exit code: 0 ok, 1 regressed, 2 misuse, 3 ambiguous, 4 invalid.

    Example: tokbench check results/new --baseline results/reference/embedded

    Example: tokbench check --against origin/main --plugins my_methods
    """
    from tokbench.check.github import append_summary, summary_file, workflow_commands
    from tokbench.check.junit import write_junit
    from tokbench.check.show import render
    from tokbench.config import load_config
    from tokbench.report.terminal.table import open_console

    settings = load_config(config)
    page = summary_file() if github else None
    measuring: dict[str, Any] = {
        "suite": suite,
        "models": models,
        "methods": methods,
        "keep": keep,
        "data": data,
        "weights": weights,
        "limit": limit,
        "device": device,
        "seconds": seconds,
        "plugins": plugins,
    }
    given = {name: value for name, value in measuring.items() if value is not None}
    if against is not None:
        if new is not None or baseline is not None or require_times:
            raise UserError("--against measures both sides itself: leave results, --baseline and --require-times out")
        report = _with_commit(against, settings, given, silent=as_json)
    else:
        report = _with_baseline(new, baseline, settings, given, require_times=require_times)
    if as_json:
        typer.echo(json.dumps({"exit_code": report.exit_code, **asdict(report)}, indent=2))
    else:
        render(report, open_console())
    if page is not None:
        append_summary(report, page)
        for line in workflow_commands(report):
            typer.echo(line, err=as_json)
    if junit is not None:
        write_junit(report, junit)
    raise typer.Exit(report.exit_code)


def _with_baseline(
    new: Path | None, baseline: Path | None, settings: Config, measuring: dict[str, Any], *, require_times: bool
) -> Report:
    from tokbench.check.gate import compare_results

    if new is None or baseline is None:
        raise UserError("name two results directories, NEW --baseline OLD, or a commit with --against")
    if measuring:
        raise UserError(f"--{min(measuring)} goes with --against: two results directories are compared as they are")
    return compare_results(new, baseline, settings.check, require_times=require_times)


def _with_commit(ref: str, settings: Config, given: dict[str, Any], *, silent: bool) -> Report:
    from rich.console import Console

    from tokbench.check.changes import compare_with_commit
    from tokbench.notation import split_list
    from tokbench.report.terminal.bars import Bars

    chosen = {name: given[name] for name in SUITE_SETTINGS if name in given}
    chosen |= {name: split_list(given[name]) for name in SUITE_LISTS if name in given}
    suite = settings.suite(given.get("suite", settings.default_suite), chosen)
    named = [*settings.plugin_paths, *(Path(path) for path in split_list(given.get("plugins", "")))]
    thresholds = settings.check
    if "seconds" in given:
        thresholds = thresholds.model_copy(update={"seconds": given["seconds"]})
    console = Console(stderr=True)
    silent = silent or not console.is_terminal
    with Bars(console, disable=silent) as observer:
        return compare_with_commit(ref, suite, settings, named, thresholds, observer)
