"""`tokbench list`: methods, models, suites and schedules."""

from __future__ import annotations

import inspect
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
    from tokbench.report.terminal.table import open_console

    settings = load_config(config)
    paths = [*settings.plugin_paths, *(Path(path) for path in split_list(plugins or ""))]
    if claims:
        if what is not What.METHODS:
            raise UserError(f"{what} have no published numbers: tokbench list methods --claims")
        _claims(paths, as_json)
        return
    items: list[dict[str, Any]]
    shown: tuple[str, ...]
    match what:
        case What.METHODS:
            items, shown = _methods(paths), ("name", "about", "paper", "regime")
        case What.MODELS:
            items, shown = _models(), ("name",)
        case What.SUITES:
            items, shown = _suites(settings.suites), ("name", "about")
        case What.SCHEDULES:
            items, shown = _schedules(), ("name", "about")
    if as_json:
        typer.echo(json.dumps(items, indent=2))
        return
    table = Table(*shown, box=None, header_style="bold", pad_edge=False)
    for item in items:
        table.add_row(*(escape(item[column]) for column in shown))
    open_console().print(table)


def _methods(paths: list[Path]) -> list[dict[str, Any]]:
    from tokbench.registry import discover

    known, broken = discover(paths)
    found = [
        {
            "name": name,
            "about": _first_line(cls.__doc__),
            "paper": f"{cls.paper.venue} {cls.paper.year}" if cls.paper else "",
            "arxiv": cls.paper.arxiv if cls.paper else None,
            "regime": "fine-tuned" if cls.trained else "off-the-shelf",
            "site": cls.site,
            "parameters": {
                parameter.name: None if parameter.default is parameter.empty else parameter.default
                for parameter in inspect.signature(cls).parameters.values()
            },
        }
        for name, cls in known.items()
    ]
    empty: dict[str, Any] = {"paper": "", "arxiv": None, "regime": "", "site": "", "parameters": {}}
    lost = [{"name": one.source, "about": f"broken: {one.reason}", **empty} for one in broken]
    return [*found, *lost]


def _suites(suites: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": name, "about": str(suite.get("description", ""))} for name, suite in suites.items()]


def _claims(paths: list[Path], as_json: bool) -> None:
    from tokbench.published.claims import published
    from tokbench.registry import discover
    from tokbench.report.terminal.published import render_published
    from tokbench.report.terminal.table import open_console
    from tokbench.run.plan import infos

    found = published(infos(discover(paths)[0].values()))
    if as_json:
        typer.echo(found.to_json(orient="records", indent=2))
    else:
        render_published(found, open_console())


def _models() -> list[dict[str, Any]]:
    from tokbench.vit.models import model_names

    return [{"name": name} for name in model_names()]


def _schedules() -> list[dict[str, Any]]:
    from tokbench.schedule import KINDS

    return [{"name": name, "about": _first_line(kind.__doc__)} for name, kind in KINDS.items()]


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]
