"""`tokbench list`: methods, models, suites and schedules."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from tokbench.errors import UserError


class What(StrEnum):
    """What can be listed."""

    METHODS = "methods"
    MODELS = "models"
    SUITES = "suites"
    SCHEDULES = "schedules"


def listing(
    what: Annotated[What, typer.Argument(help="methods, models, suites or schedules")],
    plugins: Annotated[str | None, typer.Option(help="Files or folders with methods of your own.")] = None,
    config: Annotated[Path | None, typer.Option(help="A tokbench.toml; default: the current folder's.")] = None,
    claims: Annotated[bool, typer.Option("--claims", help="The methods' published numbers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List what there is.

    Example: tokbench list methods
    """
    from tokbench.config import load_config
    from tokbench.notation import split_list
    from tokbench.report.terminal import open_console

    settings = load_config(config)
    paths = [*settings.plugin_paths, *(Path(path) for path in split_list(plugins or ""))]
    if claims:
        if what is not What.METHODS:
            raise UserError(f"{what} have no published numbers: tokbench list methods --claims")
        _claims(paths, as_json)
        return
    items = {What.METHODS: lambda: _methods(paths), What.MODELS: _models, What.SCHEDULES: _schedules}.get(
        what,
        lambda: [
            {"name": name, "description": suite.get("description", "")} for name, suite in settings.suites.items()
        ],
    )()
    if as_json:
        typer.echo(json.dumps(items, indent=2))
        return
    table = Table(*(items[0] if items else ()), box=None, header_style="bold")
    for item in items:
        table.add_row(*(escape(str(value)) for value in item.values()))
    open_console().print(table)


def _methods(paths: list[Path]) -> list[dict[str, Any]]:
    from tokbench.downsampler import parameters_text
    from tokbench.registry import bind_parameters, discover

    known, broken = discover(paths)
    found = [
        {
            "name": name,
            "site": cls.site,
            "trained": cls.trained,
            "parameters": parameters_text(bind_parameters(name, {})),
            "about": (cls.__doc__ or "").splitlines()[0],
            "paper": f"{cls.paper.venue} {cls.paper.year}, arXiv {cls.paper.arxiv}" if cls.paper else "",
        }
        for name, cls in known.items()
    ]
    lost = [
        {"name": one.source, "site": "", "trained": "", "parameters": "", "about": f"broken: {one.reason}", "paper": ""}
        for one in broken
    ]
    return [*found, *lost]


def _claims(paths: list[Path], as_json: bool) -> None:
    from tokbench.claims import published
    from tokbench.registry import discover
    from tokbench.report.claims import render_published
    from tokbench.report.terminal import open_console

    found = published(discover(paths)[0])
    if as_json:
        typer.echo(found.to_json(orient="records", indent=2))
    else:
        render_published(found, open_console())


def _models() -> list[dict[str, Any]]:
    from tokbench.models import model_names

    return [{"name": name} for name in model_names()]


def _schedules() -> list[dict[str, Any]]:
    from tokbench.schedule import KINDS

    return [{"name": name, "about": (kind.__doc__ or "").splitlines()[0]} for name, kind in KINDS.items()]
