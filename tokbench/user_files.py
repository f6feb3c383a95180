"""Paths and TOML files that the user names: what cannot be used gives a message of one line."""

from __future__ import annotations

import codecs
import stat
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydantic

from tokbench.errors import UserError, did_you_mean
from tokbench.model_names import FOLDER, place_of
from tokbench.names import EMBEDDED, RANDOM
from tokbench.notation import first_problem, shortened
from tokbench.weights_setting import SPLIT, with_paths


def expanded(path: str) -> Path:
    """The path with the user's folder for `~`.

    Raises:
        UserError: There is no such user, or no file can have this name.
    """
    if "\0" in path:
        raise UserError(f"no path can hold the character NUL, got {shortened(repr(path))}")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user, found = path.partition("/")[0], shortened(path)
        raise UserError(
            f"no folder for '{shortened(user)}' in '{found}': there is no such user; write the whole path"
        ) from None


def exists(file: Path) -> bool:
    """Whether there is something of this name, be it a folder or a broken link.

    Raises:
        UserError: The system does not say.
    """
    try:
        file.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unreadable(file, error.strerror) from None
    return True


def read_toml(file: Path) -> dict[str, Any]:
    """The file's content.

    Raises:
        UserError: There is no such file, it cannot be read, or it is not valid TOML.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe or a device may have no end
            raise _unreadable(file, "it is not a regular file")
        content = file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no config file at {shortened(str(file))}: give a tokbench.toml with --config") from None
    except OSError as error:
        raise _unreadable(file, error.strerror) from None
    except ValueError as error:  # the name holds the character NUL
        raise _unreadable(file, str(error)) from None
    return parse_toml(content, str(file))


def parse_toml(content: bytes, name: str) -> dict[str, Any]:
    """Read TOML.

    Args:
        content: What the file holds.
        name: The file's name, for the message.

    Raises:
        UserError: It is not valid TOML.
    """
    if content.startswith(codecs.BOM_UTF8):
        raise UserError(f"{name} begins with a byte order mark: save it as UTF-8 without one")
    try:
        settings = tomllib.loads(content.decode("utf-8"))
        repr(settings)  # fails for a hexadecimal integer that messages could not repeat in decimals
        return settings
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name} is not UTF-8 (line {line}): save it as UTF-8") from None
    except RecursionError:
        raise UserError(f"{name} is not valid TOML: its brackets are nested too deeply") from None
    except ValueError as error:  # a TOMLDecodeError, or that of an integer of thousands of digits
        raise UserError(f"{name} is not valid TOML: {error}") from None


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge tables key by key; any other value replaces the one below."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def with_whole_paths(config: dict[str, Any], folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """A config file's tables with the paths in them, which are relative to the file's folder, made whole.

    Args:
        config: The file's content.
        folder: Where the file is.
        names: The settings that are paths.

    Raises:
        UserError: No file can have such a name.
    """
    whole = dict(config)
    if "defaults" in whole:
        whole["defaults"] = _suite_with_whole_paths("defaults", whole["defaults"], folder, names)
    if isinstance(whole.get("suites"), dict):
        whole["suites"] = {
            name: _suite_with_whole_paths(f"suites.{name}", suite, folder, names)
            for name, suite in whole["suites"].items()
        }
    plugins = whole.get("plugins")
    if isinstance(plugins, dict) and isinstance(plugins.get("paths"), list):
        with about("[plugins]: paths"):
            paths = [str(folder / expanded(path)) if isinstance(path, str) else path for path in plugins["paths"]]
        whole["plugins"] = {**plugins, "paths": paths}
    return whole


@contextmanager
def about(what: str, keys: Sequence[str] = ()) -> Iterator[None]:
    """Let the message of an error begin with what it is about.

    Args:
        what: What is wrong.
        keys: The keys that there are, for a model of pydantic.

    Raises:
        UserError: There was an error.
    """
    try:
        yield
    except pydantic.ValidationError as error:
        raise UserError(f"{what}: {_first_error(error, keys)}") from None
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


def _first_error(error: pydantic.ValidationError, known: Sequence[str]) -> str:
    problem = error.errors()[0]
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        return f"unknown key '{shortened(key)}': {did_you_mean(key, list(known))}"
    return first_problem(error)


def _suite_with_whole_paths(table: str, suite: Any, folder: Path, names: Sequence[str]) -> Any:
    """One table of settings; pydantic reports later what is not a table."""
    if not isinstance(suite, dict):
        return suite
    whole = dict(suite)

    def in_folder(path: str) -> str:
        return path if path in (EMBEDDED, RANDOM) or path.startswith("hfds/") else str(folder / expanded(path))

    for key in names:
        value = whole.get(key)
        with about(f"[{shortened(table)}]: {key}"):
            if key in SPLIT and value is not None:
                whole[key] = with_paths(value, SPLIT[key], in_folder)
            elif isinstance(value, str):
                whole[key] = in_folder(value)
    if isinstance(models := whole.get("models"), list):
        whole["models"] = [_model_in_folder(model, folder) if isinstance(model, str) else model for model in models]
    return whole


def _model_in_folder(model: str, folder: Path) -> str:
    place = place_of(model)
    return f"{FOLDER}:{folder / expanded(place[1])}" if place and place[0] == FOLDER else model


def _unreadable(file: Path, reason: str | None) -> UserError:
    return UserError(f"cannot read {shortened(str(file))} ({reason}): give another tokbench.toml with --config")
