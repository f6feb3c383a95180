"""The settings `weights` and `checkpoint`: files, each of which may be given with its model.

An item is `FILE` or `MODEL=FILE`. `weights` is one file for the model, or one for each of several models; `random`
stands for weights that are drawn. There, only a comma before `MODEL=` begins another item, so that a path may hold
commas. `checkpoint` is any number of files, so that each comma begins another one. A path that itself looks like
several items is written in quotes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tokbench.errors import UserError, did_you_mean
from tokbench.model_names import SOURCES
from tokbench.notation import shortened

_MODEL = rf"(?:[A-Za-z_][\w.-]*|(?:{'|'.join(SOURCES)}):[^=,]+)"
_NAMED = re.compile(rf"({_MODEL})\s*=\s*(.*)", re.DOTALL)
_QUOTED = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""", re.DOTALL)
_PATH_START = r"(?:^|(?<=[=,\s]))"
_QUOTED_PATH = re.compile(_PATH_START + _QUOTED.pattern, re.DOTALL)
_OPENING_QUOTE = re.compile(_PATH_START + "[\"']")
_NEXT = re.compile(rf",\s*(?={_MODEL}\s*=)")
_COMMA = re.compile(",")


def split_weights(given: object) -> object:
    """The items of what the user gave: a text, a path, a list of them, or a mapping from models to files.

    Anything else is returned as it is.

    Raises:
        ValueError: A path is missing.
    """
    if isinstance(given, Mapping):
        return tuple(as_item(str(model), _path(str(path))) for model, path in given.items())
    if isinstance(given, Path):
        return (as_item(None, str(given)),)
    if isinstance(given, str):
        return tuple(as_item(*_read(item)) for item in _split(given))
    if isinstance(given, list | tuple) and all(isinstance(one, str | Path) for one in given):
        parts = [split_weights(one) for one in given]
        return tuple(item for part in parts if isinstance(part, tuple) for item in part)
    return given


def split_checkpoints(given: object) -> object:
    """The same for `checkpoint`, where a model may have several files: a mapping has a file or a list of them for each.

    Raises:
        ValueError: A path is missing.
    """
    if isinstance(given, Mapping):
        return tuple(
            as_item(str(model), _path(str(path)))
            for model, paths in given.items()
            for path in (paths if isinstance(paths, list | tuple) else [paths])
        )
    if isinstance(given, Path):
        return (as_item(None, str(given)),)
    if isinstance(given, str):
        return tuple(as_item(*_read(item)) for item in _split(given, _COMMA))
    if isinstance(given, list | tuple) and all(isinstance(one, str | Path) for one in given):
        parts = [split_checkpoints(one) for one in given]
        return tuple(item for part in parts if isinstance(part, tuple) for item in part)
    return given


SPLIT: Mapping[str, Callable[[object], object]] = {"weights": split_weights, "checkpoint": split_checkpoints}
"""What splits each of the two settings."""


def files_of(items: Sequence[str] | None) -> list[tuple[str | None, str]]:
    """The model, None where none is named, and the path or `random`, of each item of `split_weights`."""
    return [_read(item) for item in items or ()]


def weights_of(items: Sequence[str] | None, model: str) -> str | None:
    """The path, or `random`, of a model; None where it has its own weights."""
    files = dict(files_of(items))
    return files.get(model, files.get(None))


def check_weights(items: Sequence[str] | None, models: Sequence[str]) -> None:
    """Check that each file is of one model, and that the model is compared.

    Raises:
        UserError: This is not so; the message says how to write it.
    """
    named = [model for model, _ in files_of(items)]
    if len(named) > 1 and None in named:
        raise UserError("--weights gives a file without its model: name it, as in MODEL=FILE,MODEL=FILE")
    if len(set(named)) < len(named):
        raise UserError("--weights names a model twice: give one file for each")
    unknown = [model for model in named if model is not None and model not in models]
    if unknown:
        known = did_you_mean(unknown[0], list(models))
        raise UserError(
            f"--weights names '{shortened(unknown[0])}', which is not compared: {known} (quote a path that has a =)"
        )


def with_paths(given: object, split: Callable[[object], object], change: Callable[[str], str]) -> object:
    """A setting with another path in each item.

    Args:
        given: What the user gave, in any of its forms; what has none of them is returned as it is.
        split: `split_weights` or `split_checkpoints`.
        change: Makes the other path; also gets `random`.
    """
    try:
        items = split(given)
    except ValueError:  # which pydantic reports later
        return given
    if not isinstance(items, tuple):
        return given
    return split([as_item(model, change(path)) for model, path in files_of(items)])


def _split(text: str, separator: re.Pattern[str] = _NEXT) -> list[str]:
    """Split before each `MODEL=`, or at another separator, but not in quotes."""
    quoted = [match.span() for match in _QUOTED_PATH.finditer(text)]
    items, start = [], 0
    for comma in separator.finditer(text):
        if not any(first <= comma.start() < last for first, last in quoted):
            items.append(text[start : comma.start()])
            start = comma.end()
    return [*items, text[start:]]


def _read(item: str) -> tuple[str | None, str]:
    item = item.strip()
    named = None if _QUOTED.match(item) else _NAMED.fullmatch(item)
    model, path = (named[1], named[2].strip()) if named else (None, item)
    if _QUOTED.fullmatch(path):
        try:
            path = str(ast.literal_eval(path))
        except SyntaxError:
            raise ValueError(f"{path} is no text in quotes: double its backslashes") from None
    return model, _path(path)


def _path(path: str) -> str:
    if not path:
        raise ValueError("it names no file: give FILE, or MODEL=FILE for each model")
    return path


def as_item(model: str | None, path: str) -> str:
    """A file, with its model if that is known, as an item of either setting."""
    odd = "," in path or _NAMED.fullmatch(path) or _OPENING_QUOTE.search(path) or path != path.strip()
    text = repr(path) if odd else path
    return text if model is None else f"{model}={text}"
