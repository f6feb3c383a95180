"""`tokbench check`: find regressions, on the terminal and in CI."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokbench.cli.options import (
    PLUGINS_HELP,
    RUN,
    AsJson,
    ConfigFile,
    Settings,
    finite,
    flag,
    plugin_paths,
    suite_options,
)
from tokbench.cli.output import print_json
from tokbench.config import Check
from tokbench.errors import UserError

if TYPE_CHECKING:
    from tokbench.check.finding import Report
    from tokbench.config import Config
    from tokbench.suite import Suite

TWO_RESULTS = "Compare two results"
AGAINST = "Compare with a commit"


@suite_options(
    *("models", "methods", "keep", "data", "calibration", "weights", "no_ema", "img_size", "limit", "device"),
    heading=AGAINST,
    defaults={},
)
def check(
    *,
    new: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR]...", help="Results directories; several without --baseline must agree."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The results directory to compare each with.", rich_help_panel=TWO_RESULTS),
    ] = None,
    require_times: Annotated[
        bool,
        typer.Option("--require-times", help="Exit with 4 if times cannot be compared.", rich_help_panel=TWO_RESULTS),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="COMMIT",
            help="Measure changed methods beside their version in this commit.",
            rich_help_panel=AGAINST,
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="SUITE", help="The suite to measure.", rich_help_panel=AGAINST)
    ] = None,
    settings: Settings,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            callback=finite,
            metavar="FLOAT",
            help=Check.model_fields["seconds"].description,
            rich_help_panel=AGAINST,
        ),
    ] = None,
    plugins: Annotated[
        str | None,
        typer.Option(metavar="LIST", help=PLUGINS_HELP, rich_help_panel=AGAINST),
    ] = None,
    github: Annotated[
        bool,
        typer.Option("--github", help="Write a GitHub step summary and annotations.", rich_help_panel=RUN),
    ] = False,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JUnit XML to this file.", rich_help_panel=RUN)
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Find regressions between two results, or since a commit, and results that disagree.

    Exit code: 0 ok, 1 regressed or disagreeing, 2 wrong usage, 3 ambiguous, 4 invalid.

    Example: tokbench check results/new --baseline results/reference/embedded

    Example: tokbench check results/laptop results/server

    Example: tokbench check --against origin/main --plugins my_methods
    """
    from tokbench.check.finding import exit_code_of
    from tokbench.check.gate import compare_results
    from tokbench.check.github import append_summary, summary_file, workflow_commands
    from tokbench.check.junit import write_junit
    from tokbench.check.several import compare_runs
    from tokbench.check.show import render
    from tokbench.config import load_config
    from tokbench.report.terminal.table import open_console

    loaded = load_config(config)
    page = summary_file() if github else None
    if against is not None:
        directories = [*(new or []), *([baseline] if baseline else [])]
        if directories or require_times:
            surplus = f"the directory {directories[0]}" if directories else "--require-times"
            raise UserError(f"--against measures both versions itself: drop {surplus}")
        chosen = loaded.suite(suite or loaded.default_suite, settings)
        thresholds = loaded.check if seconds is None else loaded.check.model_copy(update={"seconds": seconds})
        own = plugin_paths(loaded, plugins)
        reports = [_against_commit(against, chosen, loaded, own, thresholds, silent=as_json)]
    else:
        measuring = {"suite": suite, "seconds": seconds, "plugins": plugins, **settings}
        given = sorted(name for name, value in measuring.items() if value is not None)
        if not new or (baseline is None and len(new) == 1):
            raise UserError(
                "give two results directories, NEW --baseline OLD, several that must agree, or a commit with --against"
            )
        if given:
            raise UserError(f"{flag(given[0])} goes with --against: results directories are compared as they are")
        if baseline is None and require_times:
            raise UserError("--require-times goes with --baseline: times of several runs need not agree")
        if baseline is None:
            reports = [compare_runs(new)]
        else:
            reports = [compare_results(one, baseline, loaded.check, require_times=require_times) for one in new]
    if as_json:
        contents = [{"exit_code": report.exit_code, **asdict(report)} for report in reports]
        print_json(contents[0] if len(contents) == 1 else contents)
    else:
        for report in reports:
            render(report, open_console())
    if page is not None:
        for report in reports:
            append_summary(report, page)
            for line in workflow_commands(report):
                typer.echo(line, err=as_json)
    if junit is not None:
        write_junit(junit, *reports)
    raise typer.Exit(exit_code_of(reports))


def _against_commit(
    commit: str, suite: Suite, config: Config, plugins: list[Path], thresholds: Check, *, silent: bool
) -> Report:
    from rich.console import Console

    from tokbench.check.changes import compare_with_commit
    from tokbench.report.terminal.bars import Bars

    console = Console(stderr=True)
    with Bars(console, disable=silent or not console.is_terminal) as observer:
        return compare_with_commit(commit, suite, config, plugins, thresholds, observer)
