"""Command-line options made from the settings in `tokbench.suite`, and options that several commands share.

Every setting of a `Suite` is one option, and its help text is the description of the field. A command takes all of
them or some: `suite_options` puts them in the place of its parameter `settings`.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

from tokbench.config import Config
from tokbench.errors import UserError
from tokbench.model_names import FOLDER
from tokbench.notation import shortened, split_list
from tokbench.suite import Suite
from tokbench.weights_setting import SPLIT

Settings = dict[str, Any]
"""Values by the name of a field of `Suite`, only those given on the command line."""

HEADINGS: Mapping[str, tuple[str, ...]] = {
    "What to compare": ("models", "methods", "keep", "schedule", "site", "position", "baselines"),
    "How much": ("only", "limit", "seeds", "analyse"),
    "Weights": ("weights", "checkpoint", "no_ema", "img_size"),
    "Data": (
        *("data", "split", "classes", "labels", "image_column", "label_column", "train"),
        *("accuracy_batch", "workers", "cache", "memory"),
    ),
    "Calibration": ("calibration", "set_apart", "calibration_limit"),
    "Device": ("device", "dtype", "threads"),
    "Timing": ("batch_size", "mode", "throughput_batch", "cold", "seconds", "precision", "timeout"),
}
RUN = "Run and output"

SUITE_FIELDS = tuple(name for names in HEADINGS.values() for name in names)

AT = "at"
AT_HELP = "Depths to reduce at; 3,6,9 is short for --schedule 'stages(at=3-6-9)'."

PLUGINS_HELP = "Files or folders with your own methods."
PluginList = Annotated[str | None, typer.Option(metavar="LIST", help=PLUGINS_HELP, rich_help_panel=RUN)]
ConfigFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A tokbench.toml; default: the current folder's.", rich_help_panel=RUN),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.", rich_help_panel=RUN)]
ResultsDirectory = Annotated[
    Path, typer.Argument(metavar="DIR", help="A directory written by tokbench compare, finished or not.")
]
ResultsDirectories = Annotated[
    list[Path], typer.Argument(metavar="DIR...", help="Directories written by tokbench compare, finished or not.")
]
VersusList = Annotated[
    str | None,
    typer.Option(
        "--versus",
        metavar="LIST",
        help="Also compare all methods with these, as tokbench versus does.",
        rich_help_panel=RUN,
    ),
]

Command = Callable[..., None]


class GroupedCommand(TyperCommand):
    """A command whose help shows its options under their headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options; --help, which has no heading, goes under the last one."""
        groups: dict[str, list[tuple[str, str]]] = {}
        heading = "Options"
        for parameter in self.get_params(ctx):
            is_argument = parameter.param_type_name == "argument"
            heading = "Arguments" if is_argument else getattr(parameter, "rich_help_panel", None) or heading
            if (record := parameter.get_help_record(ctx)) is not None:
                groups.setdefault(heading, []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def suite_options(
    *names: str,
    heading: str | None = None,
    defaults: Mapping[str, str] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Callable[[Command], Command]:
    """A decorator that turns a command's parameter `settings` into one option for each field of `Suite`.

    The command gets the options that were given as a dict, lists as tuples. `schedule` brings its short form `--at`.

    Args:
        names: The fields; none means all.
        heading: The heading of all these options in the help; None takes those of `HEADINGS`.
        defaults: Values that the help shows as defaults. The command applies them itself, so that it can tell what
            was given. None shows the defaults of `Suite`.
        texts: The whole help of those fields that mean something else to the command.
    """
    fields = names or SUITE_FIELDS

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in own.parameters.values():
            added = _parameters(fields, heading, defaults, texts or {}) if parameter.name == "settings" else [parameter]
            # typer passes everything by name; this also allows an order with defaults first.
            parameters += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in added]

        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            given = {name: arguments.pop(name) for name in (*fields, AT) if name in arguments}
            command(settings=parse_settings(given), **arguments)

        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        vars(run)["__signature__"] = own.replace(parameters=parameters)
        return run

    return decorate


def parse_settings(given: Mapping[str, Any]) -> Settings:
    """Options as settings: lists split, `--at` as a schedule, options that were not given left out.

    Args:
        given: Values by option name, None where an option was not given.

    Raises:
        UserError: A list is not separated by commas, the schedule or `--at` has another form, or both are given.
    """
    # The paths of weights may hold spaces and commas, so that the setting itself splits them.
    settings: Settings = {
        name: parse_list(name, value) if _metavar(name) == "LIST" else value
        for name, value in given.items()
        if name != AT and value is not None
    }
    if (at := given.get(AT)) is not None:
        if "schedule" in settings:
            raise UserError("--at is short for --schedule 'stages(at=...)': give one of the two")
        settings["schedule"] = (_schedule_at(at),)
    for schedule in settings.get("schedule", ()):
        _check_spaces(schedule)
    return settings


def parse_list(name: str, text: str) -> tuple[str, ...]:
    """Split a comma-separated list; commas in brackets and quotes do not split.

    Args:
        name: The option's name, for the message.
        text: Its value.

    Raises:
        UserError: The items are separated by spaces.
    """
    items = split_list(text)
    apart = split_list(re.sub(r"\s+\(", "(", text), separators=f",{string.whitespace}")
    if len(apart) > len(items) and f"{FOLDER}:" not in text:  # the name of a folder may hold spaces
        suggested = ",".join(apart)
        raise UserError(
            f"invalid {flag(name)} '{shortened(text)}': separate items by commas, as in {flag(name)} {suggested}"
        )
    return tuple(items)


def resolve_suite(config: Config, name: str | None, settings: Settings, base: Mapping[str, Any] | None = None) -> Suite:
    """The suite to run.

    Args:
        config: The config file's content.
        name: The suite; None takes the config's default.
        settings: What was given on the command line.
        base: The command's own defaults, between the suite and the command line.

    Raises:
        UserError: The suite is unknown, a setting is wrong, or --keep is given with a schedule that takes none.
    """
    from tokbench.schedule_text import takes_keep

    suite = config.suite(name or config.default_suite, {**(base or {}), **settings})
    if "keep" in settings and not any(map(takes_keep, suite.schedule)):
        written = ",".join(suite.schedule)
        raise UserError(f"schedule '{shortened(written)}' already fixes the token counts: drop --keep")
    return suite


def plugin_paths(config: Config, plugins: str | None) -> list[Path]:
    """Files and folders with the user's own methods: the config file's and those of `--plugins`."""
    return [*config.plugin_paths, *(Path(path) for path in split_list(plugins or ""))]


def finite(value: float | None) -> float | None:
    """Refuse nan and inf, which pass the limits of typer; a callback of options."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def flag(name: str) -> str:
    """The option of a parameter: `--batch-size` for `batch_size`."""
    return f"--{name.replace('_', '-')}"


def _parameters(
    fields: tuple[str, ...], heading: str | None, defaults: Mapping[str, str] | None, texts: Mapping[str, str]
) -> list[inspect.Parameter]:
    """The parameters of a command that stand for fields of `Suite`."""
    headings = {name: heading or group for group, names in HEADINGS.items() for name in names}
    found = []
    for name in fields:
        field = Suite.model_fields[name]
        default = _default_text(name) if defaults is None else defaults.get(name)
        described = f"{field.description} [default: {default}]" if default else field.description
        text = texts.get(name, described)
        plain = _plain_type(field.annotation)
        kind = plain if plain in (bool, int, float) else str
        # Of a setting that begins with "no", the opposite has no second "no".
        written = [f"{flag(name)}/--{name.removeprefix('no_')}"] if name.startswith("no_") else []
        option = typer.Option(*written, metavar=_metavar(name), help=text, rich_help_panel=headings[name])
        found.append(_parameter(name, kind, option))
        if name == "schedule":
            option = typer.Option(metavar="LIST", help=AT_HELP, rich_help_panel=headings[name])
            found.append(_parameter(AT, str, option))
    return found


def _metavar(name: str) -> str | None:
    """What the help shows as the value of a field's option."""
    if name in SPLIT:
        return "[MODEL=]FILE"
    plain = _plain_type(Suite.model_fields[name].annotation)
    return {bool: None, int: "INT", float: "FLOAT", tuple: "LIST", Path: "PATH"}.get(plain, "TEXT")


def _parameter(name: str, kind: type, option: Any) -> inspect.Parameter:
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _default_text(name: str) -> str | None:
    """A field's default as it is written on the command line; None for flags and where the description says it."""
    field = Suite.model_fields[name]
    if field.is_required():
        return "from the suite"
    default = field.default
    if default is None or isinstance(default, bool):
        return None
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _plain_type(annotation: Any) -> Any:
    """A field's type without None, constraints and the types of items: tuple for `tuple[int, ...] | None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain_type(get_args(annotation)[0])
    if origin is Literal:
        return str
    if origin in (Union, UnionType):
        alternatives = {_plain_type(one) for one in get_args(annotation)} - {NoneType}
        return alternatives.pop() if len(alternatives) == 1 else str
    return origin or annotation


def _schedule_at(at: str) -> str:
    depths = re.split(r"\s*[,-]\s*", at.strip())
    if not all(depth.isdecimal() for depth in depths):
        raise UserError(f"invalid --at '{shortened(at)}': expected depths, as in --at 3,6,9")
    return f"stages(at={'-'.join(depths)})"


def _check_spaces(schedule: str) -> None:
    """Numbers within a schedule are joined by hyphens or commas."""
    listed = r"\d+(?:[ \t]+\d+)+"
    if re.search(listed, schedule):
        suggested = re.sub(listed, lambda numbers: "-".join(numbers[0].split()), schedule)
        raise UserError(f"invalid --schedule '{shortened(schedule)}': join numbers by hyphens, as in {suggested}")
