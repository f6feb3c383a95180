"""The methods to check: a method by its name, or all methods of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokbench import registry
from tokbench.conformance.result import line_in, location, one_line
from tokbench.downsampler import Downsampler
from tokbench.errors import UserError, did_you_mean
from tokbench.notation import parse_call
from tokbench.streams import stdout_to_stderr


@dataclass(frozen=True)
class Subject:
    """A method under test, or a file without a method.

    Attributes:
        label: The method as users write it, `token_pooling(algorithm=kmeans)`, or the file if it has no method.
        method: The class; None if there is no method.
        params: Parameters that differ from their defaults.
        problem: Why there is no method, with file and line.
    """

    label: str
    method: type[Downsampler] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def cls(self) -> type[Downsampler]:
        """The class; only for subjects that have one."""
        assert self.method is not None
        return self.method

    @property
    def file(self) -> str:
        """The file that defines the class."""
        return registry.source_file(self.cls)

    def create(self) -> Downsampler:
        """A new instance; to fix random initial weights, seed torch before the call."""
        return registry.create(self.cls.name, **self.params)


def find(targets: Iterable[str | Path], plugins: Iterable[Path] = ()) -> list[Subject]:
    """Find the given methods.

    Args:
        targets: Methods, such as `tome` or `token_pooling(algorithm=kmeans)`, and paths of files, which end in `.py`.
        plugins: Files and folders with further methods.

    Raises:
        UserError: A method is unknown or a file does not exist.
    """
    known, _ = registry.discover(plugins)
    found: list[Subject] = []
    for target in targets:
        text = str(target)
        found += _of_file(Path(text)) if text.endswith(".py") else [_of_name(text, list(known))]
    return found


def find_all(plugins: Iterable[Path] = ()) -> list[Subject]:
    """Find all methods, and all plugins that cannot be imported.

    Args:
        plugins: As in `find`.
    """
    known, broken = registry.discover(plugins)
    without_method: list[Subject] = []
    for one in broken:
        path = Path(one.source)
        without_method += _of_file(path) if path.is_file() else [Subject(one.source, problem=one.reason)]
    return [*(Subject(name, cls) for name, cls in known.items()), *without_method]


def _of_name(text: str, known: list[str]) -> Subject:
    call = parse_call(text)
    if call.name not in known:
        raise UserError(f"unknown method '{call.name}' (file names must end in .py): {did_you_mean(call.name, known)}")
    registry.create(call.name, **call.named)  # raises UserError for invalid parameters
    return Subject(text, registry.method_class(call.name), call.named)


def _of_file(path: Path) -> list[Subject]:
    if not path.is_file():
        raise UserError(f"no file at {path}: give the name of a method or an existing file")
    real = str(path.resolve())
    try:
        with stdout_to_stderr():
            registry.load_file(path)
        known, _ = registry.discover()
    except KeyboardInterrupt:
        raise
    # A plugin is third-party code and may raise anything.
    except BaseException as error:
        return [Subject(str(path), problem=f"{location(real, line_in(real, error) or 1)}: {one_line(error)}")]
    found = [
        Subject(name, cls) for name, cls in known.items() if str(Path(registry.source_file(cls)).resolve()) == real
    ]
    problem = f'{location(real, 1)}: expected a class with @register("{path.stem}"), got none'
    return found or [Subject(str(path), problem=problem)]
