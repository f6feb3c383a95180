"""The command that repeats a comparison, read from its plan.

A plan holds a suite's settings but not its name, and the parameters of its methods wherever they were set. The command
therefore starts from the packaged suite with the fewest differences, and sets each difference with an option.
"""

from __future__ import annotations

import importlib.resources
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokbench.config import FILE_NAME, load_config
from tokbench.names import IMG_SIZE, PLAIN
from tokbench.notation import parameters_text, split_parameters
from tokbench.results import MethodInfo, Plan, PlannedRow
from tokbench.schedule_text import takes_keep

SUITE = "again"
SUITE_FILE = "again.toml"
WITHOUT_OPTION = ("accuracy_batch", "precision")  # can only be set in a tokbench.toml


@dataclass(frozen=True)
class RerunCommands:
    """How to repeat a comparison.

    Attributes:
        compare: The shell command that measures; with the same directory it only measures what is missing.
        report: The shell command that writes the page.
        suite: The content of a `tokbench.toml` for `compare`, to be saved as `SUITE_FILE`; empty if not needed.
        own_methods: Methods from files of the user's own; `compare` needs --plugins to find them.
    """

    compare: str
    report: str
    suite: str
    own_methods: tuple[str, ...]


def rerun_commands(plan: Plan, directory: Path, versus: Sequence[str] = ()) -> RerunCommands:
    """The shortest command that plans the same cells, in a folder without a `tokbench.toml`.

    Args:
        plan: A directory's plan.
        directory: The output directory of the command; data and weights keep the paths that the user gave.
        versus: Methods that the page compares all others with.
    """
    wanted = _planned_settings(plan)
    changes = {name: _changed_settings(settings, wanted) for name, settings in _packaged_settings().items()}
    # No option resets a setting to None or False.
    expressible = {
        name: settings
        for name, settings in changes.items()
        if not any(value is None or value is False or key in WITHOUT_OPTION for key, value in settings.items())
    }
    if expressible:
        name = min(expressible, key=lambda name: len(expressible[name]))
        arguments, suite = [name, *(part for setting in expressible[name].items() for part in _option(*setting))], ""
    else:
        arguments, suite = [SUITE, "--config", SUITE_FILE], _suite_toml(wanted)
    compare = shlex.join(["tokbench", "compare", *arguments, "--out", str(directory)])
    report = shlex.join(["tokbench", "report", str(directory), *(["--versus", ",".join(versus)] if versus else [])])
    own = tuple(name for name, info in plan.methods.items() if info.own)
    return RerunCommands(compare, report, suite, own)


@cache
def _packaged_settings() -> dict[str, dict[str, Any]]:
    """The settings of each suite that comes with tokbench, by its name. A site asks for a command per row."""
    packaged = load_config(Path(str(importlib.resources.files("tokbench").joinpath(FILE_NAME))))
    return {name: packaged.suite(name, {}).model_dump(mode="json") for name in packaged.suites}


def _planned_settings(plan: Plan) -> dict[str, Any]:
    """The suite's settings as planned: with the parameters of the methods, and the detected device."""
    settings = {key: value for key, value in plan.suite.model_dump(mode="json").items() if key != "description"}
    if settings["device"] == "auto":
        settings["device"] = plan.device
    if not any(map(takes_keep, settings["schedule"])):
        del settings["keep"]
    own = [row.id for row in plan.rows if not row.is_plain and not _is_baseline(row, plan)]
    methods = dict.fromkeys((row.method, row.params) for row in own)
    settings["methods"] = [_method_call(method, params, plan) for method, params in methods] or [PLAIN]
    return settings


def _is_baseline(row: PlannedRow, plan: Plan) -> bool:
    """Whether a row follows from `--baselines`, not from `--methods`."""
    return row.id.has_fewer_pixels and not any(IMG_SIZE in text for text in plan.suite.methods)


def _method_call(method: str, params: str, plan: Plan) -> str:
    """A method with the parameters that differ from its defaults; with all of them if those are not known."""
    defaults = plan.methods.get(method, MethodInfo()).defaults
    own = {name: value for name, value in split_parameters(params).items() if defaults.get(name) != value}
    return f"{method}({parameters_text(own)})" if own else method


def _changed_settings(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in wanted.items() if key not in base or base[key] != value}


def _option(key: str, value: Any) -> list[str]:
    """A setting as command line arguments."""
    option = f"--{key.replace('_', '-')}"
    if value is True:
        return [option]
    return [option, ",".join(map(str, value)) if isinstance(value, list) else str(value)]


def _suite_toml(settings: Mapping[str, Any]) -> str:
    """A suite in TOML, where strings, numbers and lists are written as in JSON."""
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items() if value is not None]
    return "\n".join([f"[suites.{SUITE}]", *lines, ""])
