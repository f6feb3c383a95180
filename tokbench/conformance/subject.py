"""What is verified: a method by its name, or the methods of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokbench import registry
from tokbench.conformance.result import line_in, one_line, place
from tokbench.downsampler import Downsampler
from tokbench.errors import UserError, did_you_mean
from tokbench.notation import parse_call


@dataclass(frozen=True)
class Subject:
    """A method under test, or a file that gave none.

    Attributes:
        label: As users write it: `token_pooling(algorithm=kmeans)`; the file where it did not import.
        method: The class; None where the file did not import.
        params: Parameters that differ from their defaults.
        problem: Why there is no class, with file and line.
    """

    label: str
    method: type[Downsampler] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def cls(self) -> type[Downsampler]:
        """The class, for checks that only run where there is one."""
        assert self.method is not None
        return self.method

    @property
    def file(self) -> str:
        """The file that defines the class."""
        return registry.source_file(self.cls)

    def create(self) -> Downsampler:
        """A new instance; random initial weights are the caller's care."""
        return registry.create(self.cls.name, **self.params)


def find(targets: Iterable[str | Path], plugins: Iterable[Path] = ()) -> list[Subject]:
    """The methods that were asked for.

    Args:
        targets: Names, as `tome` or `token_pooling(algorithm=kmeans)`, and paths of files, which end in `.py`.
        plugins: Files and folders with further methods that have names.

    Raises:
        UserError: A name or a file is unknown.
    """
    known, _ = registry.discover(plugins)
    found: list[Subject] = []
    for target in targets:
        text = str(target)
        found += _of_file(Path(text)) if text.endswith(".py") else [_of_name(text, list(known))]
    return found


def find_all(plugins: Iterable[Path] = ()) -> list[Subject]:
    """Every method there is, and every plugin that does not import.

    Args:
        plugins: As for `find`.
    """
    known, broken = registry.discover(plugins)
    lost: list[Subject] = []
    for one in broken:
        path = Path(one.source)
        lost += _of_file(path) if path.is_file() else [Subject(one.source, problem=one.reason)]
    return [*(Subject(name, cls) for name, cls in known.items()), *lost]


def _of_name(text: str, known: list[str]) -> Subject:
    call = parse_call(text)
    if call.name not in known:
        raise UserError(f"unknown method '{call.name}' (a file's name ends in .py): {did_you_mean(call.name, known)}")
    registry.create(call.name, **call.named)  # a wrong parameter is the user's mistake, not the method's
    return Subject(text, registry.method_class(call.name), call.named)


def _of_file(path: Path) -> list[Subject]:
    if not path.is_file():
        raise UserError(f"no file at {path}: give a method's name or its file")
    real = str(path.resolve())
    try:
        registry.load_file(path)
        known, _ = registry.discover()
    # A plugin is somebody else's code and may fail in any way.
    except (Exception, SystemExit) as error:
        return [Subject(str(path), problem=f"{place(real, line_in(real, error) or 1)}: {one_line(error)}")]
    mine = [Subject(name, cls) for name, cls in known.items() if str(Path(registry.source_file(cls)).resolve()) == real]
    nothing = f'{place(real, 1)}: expected a class under @register("{path.stem}"), got none'
    return mine or [Subject(str(path), problem=nothing)]
