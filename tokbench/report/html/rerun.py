"""The command that measures a directory's cells again, read from its plan.

A plan holds a suite's settings, not its name, and its methods' parameters, wherever they were set. So the command
starts from the packaged suite that is nearest and says every setting that differs, by a flag where there is one.
"""

from __future__ import annotations

import importlib.resources
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokbench.config import FILE_NAME, load_config
from tokbench.errors import UserError
from tokbench.names import PLAIN
from tokbench.notation import parameters_text, parse_call
from tokbench.registry import bind_parameters, method_class
from tokbench.schedule import takes_keep

SUITE = "again"
SUITE_FILE = "again.toml"
WITHOUT_FLAG = ("accuracy_batch", "precision")  # only a tokbench.toml sets them


@dataclass(frozen=True)
class RerunCommands:
    """How a comparison is run again.

    Attributes:
        command: For a shell; into the same directory it does what is missing, into another one all of it.
        report: Writes the page.
        suite: A `tokbench.toml` that the command reads as `SUITE_FILE`; empty where flags say everything.
        strangers: Methods that are not installed here: the command finds them with --plugins.
    """

    command: str
    report: str
    suite: str
    strangers: tuple[str, ...]


def rerun_commands(plan: Mapping[str, Any], directory: Path) -> RerunCommands:
    """The shortest command that plans the same cells, in a folder without a `tokbench.toml`.

    Args:
        plan: A directory's plan.
        directory: Where the command is to write; data and weights are named as they were given.
    """
    wanted = _planned_settings(plan)
    packaged = load_config(Path(str(importlib.resources.files("tokbench").joinpath(FILE_NAME))))
    starts = {
        name: _changed_settings(packaged.suite(name, {}).model_dump(mode="json"), wanted) for name in packaged.suites
    }
    # No flag takes a setting back to nothing.
    expressible = {
        name: changes
        for name, changes in starts.items()
        if not any(value is None or value is False or key in WITHOUT_FLAG for key, value in changes.items())
    }
    if expressible:
        name = min(expressible, key=lambda name: len(expressible[name]))
        arguments, suite = (
            [name, *(argument for change in expressible[name].items() for argument in _flag_arguments(*change))],
            "",
        )
    else:
        arguments, suite = [SUITE, "--config", SUITE_FILE], _suite_toml(wanted)
    command = shlex.join(["tokbench", "compare", *arguments, "--out", str(directory)])
    names = dict.fromkeys(row["method"] for row in plan["rows"] if row["method"] != PLAIN)
    report = shlex.join(["tokbench", "report", str(directory)])
    return RerunCommands(command, report, suite, tuple(name for name in names if not _is_installed(name)))


def _planned_settings(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The suite's settings as they came out: methods with the parameters they had, the device that was found."""
    settings = {key: value for key, value in plan["suite"].items() if key != "description"}
    if settings["device"] == "auto":
        settings["device"] = plan["device"]
    if not takes_keep(settings["schedule"]):
        del settings["keep"]
    rows = dict.fromkeys((row["method"], row["params"]) for row in plan["rows"])
    settings["methods"] = [_method_call(*row) for row in rows if row != (PLAIN, "")] or [PLAIN]
    return settings


def _method_call(method: str, params: str) -> str:
    """A method with the parameters that are not its defaults; with all of them where it is not installed."""
    full = f"{method}({params})" if params else method
    if not _is_installed(method):
        return full
    try:
        bound = bind_parameters(method, parse_call(full).named)
        defaults = bind_parameters(method, {})
    except UserError:
        return full
    own = parameters_text({name: value for name, value in bound.items() if value != defaults[name]})
    if parameters_text(bound) != params:  # the method has changed since
        return full
    return f"{method}({own})" if own else method


def _is_installed(method: str) -> bool:
    try:
        method_class(method)
    except UserError:
        return False
    return True


def _changed_settings(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in wanted.items() if key not in base or base[key] != value}


def _flag_arguments(key: str, value: Any) -> list[str]:
    flag = f"--{key.replace('_', '-')}"
    if value is True:
        return [flag]
    return [flag, ",".join(map(str, value)) if isinstance(value, list) else str(value)]


def _suite_toml(settings: Mapping[str, Any]) -> str:
    """A suite of its own. Strings, numbers and lists are written alike in JSON and in TOML."""
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items() if value is not None]
    return "\n".join([f"[suites.{SUITE}]", *lines, ""])
