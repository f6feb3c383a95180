"""`tokbench list`: methods, models, suites, schedules and published numbers."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from tokbench.cli.options import AsJson, ConfigFile, PluginList, parse_list, plugin_paths
from tokbench.cli.output import print_json
from tokbench.errors import UserError, did_you_mean
from tokbench.names import CALIBRATED, OFF_THE_SHELF

if TYPE_CHECKING:
    import pandas as pd

    from tokbench.downsampler import Downsampler


class What(StrEnum):
    """What can be listed."""

    METHODS = "methods"
    MODELS = "models"
    SUITES = "suites"
    SCHEDULES = "schedules"
    CLAIMS = "claims"


def listing(
    what: Annotated[
        What, typer.Argument(help="methods, models, suites, schedules, or claims: the published numbers of methods")
    ],
    methods: Annotated[
        str | None, typer.Option("--methods", "--method", metavar="LIST", help="Only claims of these methods.")
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            "--models", "--model", metavar="LIST", help="Only claims for models with one of these in their name."
        ),
    ] = None,
    measured: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Set claims beside what this directory measured; may be repeated."),
    ] = None,
    claims: Annotated[bool, typer.Option("--claims", help="The same as list claims.")] = False,
    plugins: PluginList = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List methods, models, suites, schedules or claims.

    Example: tokbench list methods

    Example: tokbench list claims --method tome --model deit_small_patch16_224

    Example: tokbench list claims --measured results/imagenet
    """
    from tokbench.config import load_config
    from tokbench.report.terminal.table import open_console

    loaded = load_config(config)
    paths = plugin_paths(loaded, plugins)
    if claims and what not in (What.METHODS, What.CLAIMS):
        raise UserError(f"{what} have no published numbers: tokbench list claims")
    if claims or what is What.CLAIMS:
        _claims(_selected(paths, methods, models), methods is None and models is None, measured or [], as_json)
        return
    if methods is not None or models is not None or measured:
        raise UserError("--methods, --models and --measured are for claims: tokbench list claims --methods tome")
    items: list[dict[str, Any]]
    shown: tuple[str, ...]
    match what:
        case What.METHODS:
            items, shown = _methods(paths), ("name", "about", "paper", "regime")
        case What.MODELS:
            _models(as_json)
            return
        case What.SUITES:
            items, shown = _suites(loaded.suites), ("name", "about")
        case What.SCHEDULES:
            items, shown = _schedules(), ("name", "about")
    if as_json:
        print_json(items)
        return
    table = Table(*shown, box=None, header_style="bold", pad_edge=False)
    for item in items:
        table.add_row(*(escape(item[column]) for column in shown))
    open_console().print(table)


def _methods(paths: list[Path]) -> list[dict[str, Any]]:
    from tokbench.parameters import parameters_of
    from tokbench.registry import discover
    from tokbench.values import json_value

    known, broken = discover(paths)
    found = [
        {
            "name": name,
            "about": _first_line(cls.__doc__),
            "paper": f"{cls.paper.venue} {cls.paper.year}" if cls.paper else "",
            "arxiv": cls.paper.arxiv if cls.paper else None,
            "regime": _regime(cls),
            "site": cls.site,
            "parameters": {
                parameter: None if declared.required else json_value(declared.default)
                for parameter, declared in parameters_of(cls).items()
            },
        }
        for name, cls in known.items()
    ]
    empty: dict[str, Any] = {"paper": "", "arxiv": None, "regime": "", "site": "", "parameters": {}}
    not_imported = [{"name": one.source, "about": f"broken: {one.reason}", **empty} for one in broken]
    return [*found, *not_imported]


def _regime(method: type[Downsampler]) -> str:
    """What a method needs before it can be measured."""
    if method.trained:
        return "fine-tuned"
    return CALIBRATED if method.calibrated else OFF_THE_SHELF


def _suites(suites: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": name, "about": str(suite.get("description", ""))} for name, suite in suites.items()]


def _claims(found: pd.DataFrame, everything: bool, measured: list[Path], as_json: bool) -> None:
    """Print claims: a summary of everything, a list of those that were selected, or beside what was measured."""
    from tokbench.published.claims import load_claims, public_top1
    from tokbench.published.counted import load_counted
    from tokbench.published.verdicts import compare_claims
    from tokbench.report.terminal.published import render_published, render_summary
    from tokbench.report.terminal.table import open_console
    from tokbench.report.terminal.verdicts import render_verdicts
    from tokbench.results import load

    frame = compare_claims([load(directory) for directory in measured], found) if measured else found
    if as_json:
        typer.echo(frame.to_json(orient="records", indent=2))
    elif measured:
        render_verdicts(frame, open_console())
    elif everything:
        render_summary(found, open_console())
    else:
        render_published(found, open_console(), public_top1(load_claims()), load_counted())


def _selected(paths: list[Path], methods: str | None, models: str | None) -> pd.DataFrame:
    """The claims of some methods and models.

    Raises:
        UserError: There are none.
    """
    from tokbench.published.claims import published
    from tokbench.registry import discover
    from tokbench.run.method_info import infos

    registered = discover(paths)[0]
    found = published(infos(registered.values()))
    if methods is not None:
        names = parse_list("methods", methods)
        without = [name for name in names if name in registered and name not in set(found["method"])]
        if without:
            raise UserError(f"there are no published numbers of '{without[0]}': tokbench list claims names the others")
        found = _select(found, ("method",), names, lambda cell, name: cell == name)
    if models is not None:
        names = parse_list("models", models)
        found = _select(found, ("published_model", "model"), names, lambda cell, name: name.lower() in cell.lower())
    return found


def _select(
    claims: pd.DataFrame, columns: tuple[str, ...], names: tuple[str, ...], fits: Callable[[str, str], bool]
) -> pd.DataFrame:
    """The claims with a cell that fits one of the names, in one of the columns.

    Raises:
        UserError: A name fits no claim.
    """
    known = sorted({cell for column in columns for cell in claims[column] if cell})
    for name in names:
        if not any(fits(cell, name) for cell in known):
            raise UserError(f"no published number for '{name}': {did_you_mean(name, known)}")
    matches = claims[list(columns)].map(lambda cell: any(fits(cell, name) for name in names))
    return claims[matches.any(axis="columns")]


def _models(as_json: bool) -> None:
    """Print the architectures, family by family, and why some are not supported."""
    from dataclasses import asdict

    from tokbench.embedded.model import build
    from tokbench.names import EMBEDDED_MODELS
    from tokbench.report.terminal.table import open_console
    from tokbench.vit.architectures import architectures, described

    own = [described(name, vit := build(name), type(vit).__name__, vit.num_classes) for name in EMBEDDED_MODELS]
    found = architectures()
    if as_json:
        print_json([asdict(one) for one in (*own, *found)])
        return
    console = open_console()
    console.print(f"Trained models that come with tokbench: {', '.join(EMBEDDED_MODELS)}")
    for family in dict.fromkeys(one.family for one in found):
        members = [one for one in found if one.family == family]
        supported = [one for one in members if not one.refusal]
        table = Table("name", "positions", "pooling", "classes", box=None, header_style="bold", pad_edge=False)
        for one in supported:
            table.add_row(one.name, one.positions, one.pooling, "" if one.classes is None else str(one.classes))
        console.print(f"\n[bold]timm's {family}[/bold] ({len(supported)} of {len(members)} architectures)\n")
        console.print(table)
        for reason in dict.fromkeys(one.refusal for one in members if one.refusal):
            names = ", ".join(one.name for one in members if one.refusal == reason)
            console.print(f"\nnot supported, because {escape(reason)}: {names}")
    console.print("\nclasses: of timm's default weights; 0 where these have no head, blank where there are none")


def _schedules() -> list[dict[str, Any]]:
    from tokbench.schedule import KINDS

    return [{"name": name, "about": _first_line(kind.__doc__)} for name, kind in KINDS.items()]


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]
