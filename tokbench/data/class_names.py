"""The names of classes: reading them from a file, and finding the class that a text names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokbench.data.errors import DataError
from tokbench.data.labelling import few

__all__ = ["ClassIndex", "read_class_names"]

_MAX_BYTES = 64 * 2**20
_FORMS = 'one name per line in a .txt; in a .json a list of names, {"name": index} or {"index": "name"}'

# Where the configurations of Hugging Face and timm keep the names.
_KEYS = ("id2label", "class_to_idx", "label2id", "label_names")


class ClassIndex:
    """Finds the index of the class that a text names: exactly, else without regard to case, `_`, `-` and spaces.

    A name that several classes have finds none of them: ImageNet has two kinds of `crane`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Index some names.

        Args:
            names: Of the classes, in their order.
        """
        same = Counter(names)
        self._exact = {name: index for index, name in enumerate(names) if same[name] == 1}
        counts = Counter(map(_loose, names))
        # two names that differ in case only are distinguished exactly or not at all
        self._loose = {_loose(name): index for index, name in enumerate(names) if counts[_loose(name)] == 1}

    def find(self, text: str) -> int | None:
        """The index of a class; None where none has this name."""
        found = self._exact.get(text)
        return self._loose.get(_loose(text)) if found is None else found


def read_class_names(file: Path) -> tuple[str, ...]:
    """The names of the classes in the order of the model's outputs.

    Args:
        file: A text file with one name per line, or a JSON file with a list of names, `{"name": index}`,
            `{"index": "name"}`, or a configuration that has one of these under `id2label`, `class_to_idx`, `label2id`
            or `label_names`.

    Raises:
        DataError: The file cannot be read, has another form, names a class twice, or leaves out an index.
    """
    try:
        if not file.is_file():
            raise ValueError("there is no such file")
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES >> 20} MiB")
        text = file.read_text(encoding="utf-8-sig")
        names = _of_json(json.loads(text)) if file.suffix.lower() == ".json" else _lines(text)
        if not names:
            raise ValueError("it has no names")
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"--classes: {file} cannot be used ({reason}): give {_FORMS}") from error
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"--classes: {file} has {few(twice)} more than once: give each class one name of its own")
    return names


def _lines(text: str) -> tuple[str, ...]:
    lines = tuple(line.strip() for line in text.rstrip().splitlines())
    if "" in lines:
        raise ValueError(f"line {lines.index('') + 1} is empty")
    return lines


def _of_json(content: Any) -> tuple[str, ...]:
    if isinstance(content, dict):
        content = next((content[key] for key in _KEYS if isinstance(content.get(key), dict | list)), content)
    if isinstance(content, dict):
        content = _in_order(content)
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ValueError("it has another form")
    return tuple(content)


def _in_order(content: Mapping[str, Any]) -> list[str]:
    """The names of a dict in the order of the indices, which are its values or its keys."""
    if all(type(value) is int for value in content.values()):
        indices = {value: name for name, value in content.items()}
    elif all(re.fullmatch(r"\d{1,9}", key) and isinstance(value, str) for key, value in content.items()):
        indices = {int(key): value for key, value in content.items()}
    else:
        raise ValueError("it has another form")
    if len(indices) < len(content) or set(indices) != set(range(len(indices))):
        raise ValueError(f"its indices are not 0..{len(content) - 1}, each once")
    return [indices[index] for index in range(len(indices))]


def _loose(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip()).casefold()
