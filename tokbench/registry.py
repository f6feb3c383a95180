"""Find methods and create them by name.

A method is registered when its file is imported. Files come from three places: the package `tokbench.methods`, the
installed packages' entry points in the group `tokbench.methods`, and the paths that the user names. If a file cannot
be imported, only its own methods are missing; the file is reported as broken.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import keyword
import pkgutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tokbench.downsampler import Downsampler
from tokbench.errors import UserError, describe, did_you_mean
from tokbench.guard import Surroundings, check_unchanged
from tokbench.isolation import ends_the_run, step
from tokbench.names import ALL, PLAIN
from tokbench.notation import bind, parse_call
from tokbench.plugins import forget, plugin_files
from tokbench.plugins import load_file as load_file
from tokbench.sources import METHODS as METHODS
from tokbench.sources import source_digest as source_digest
from tokbench.sources import source_file as source_file
from tokbench.streams import stdout_to_stderr

RESERVED = (PLAIN, ALL)

_classes: dict[str, type[Downsampler]] = {}

T = TypeVar("T", bound=type[Downsampler])


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be imported."""

    source: str
    reason: str


class NameTakenError(UserError):
    """Two files register the same method name."""


def register(name: str) -> Callable[[T], T]:
    """Register a downsampler under a name: `@register("my_method")`.

    Raises:
        NameTakenError: Another file has registered the name.
        TypeError: The class is not a Downsampler.
        ValueError: The name is not a Python identifier, or it is reserved.
    """
    if not isinstance(name, str):
        raise TypeError(f'a method is registered under a name, as in @register("my_method"), not {name!r}')

    def decorate(cls: T) -> T:
        if not (inspect.isclass(cls) and issubclass(cls, Downsampler)):
            raise TypeError(f"@register({name!r}) is for subclasses of tokbench.Downsampler, not {cls!r}")
        problem = name_problem(name)
        if problem:
            raise ValueError(f"invalid method name {name!r}: {problem}")
        taken = _classes.get(name)
        # The same class may come again: notebooks reload modules.
        if taken is not None and _place(taken) != _place(cls):
            raise NameTakenError(
                f"the method name '{name}' is taken twice: {source_file(taken)} and {source_file(cls)}; rename one"
            )
        cls.name = name
        _classes[name] = cls
        return cls

    return decorate


def _place(cls: type) -> tuple[str, str]:
    return source_file(cls), cls.__qualname__


def name_problem(name: str) -> str:
    """Why a name cannot be a method's; empty if it can."""
    if not name.isidentifier() or keyword.iskeyword(name):
        return "use a Python identifier such as my_method"
    if unicodedata.normalize("NFKC", name) != name:
        return "Python reads its characters as others: use plain letters"
    return f"{' and '.join(RESERVED)} have a meaning of their own: choose another" if name in RESERVED else ""


def discover(paths: Iterable[Path] = ()) -> tuple[dict[str, type[Downsampler]], tuple[Broken, ...]]:
    """Import all plugins: tokbench's own methods, those of installed packages, and the given files.

    Args:
        paths: Further files and folders; in a folder, every `*.py` except `_*` and `test_*`.

    Returns:
        The methods by name, sorted, and the plugins that could not be imported.

    Raises:
        NameTakenError: Two files register the same name.
        UserError: A path does not exist.
    """
    broken: list[Broken] = []

    def attempt(source: str, load: Callable[[], object]) -> None:
        before = dict(_classes)
        try:
            with stdout_to_stderr(), step(f"importing {source}"):
                load()
            if surroundings is not None:
                check_unchanged(surroundings)
        # A plugin is third-party code and may raise anything; the other plugins must still load.
        except BaseException as error:
            if isinstance(error, NameTakenError) or ends_the_run(error):
                raise
            _classes.clear()
            _classes.update(before)
            broken.append(Broken(source, describe(error)))

    surroundings: Surroundings | None = None
    for module in pkgutil.iter_modules(importlib.import_module(METHODS).__path__):
        if not module.name.startswith("_"):
            attempt(module.name, lambda name=module.name: importlib.import_module(f"{METHODS}.{name}"))  # type: ignore[misc]
    for point in importlib.metadata.entry_points(group=METHODS):
        attempt(f"{point.name} = {point.value}", point.load)
    files = [file for path in paths for file in plugin_files(path)]
    if files:  # the user's own; those of installed packages are trusted
        surroundings = Surroundings()
    for file in files:
        attempt(str(file), lambda file=file: load_file(file))  # type: ignore[misc]
    return dict(sorted(_classes.items())), tuple(broken)


def load_apart(path: Path) -> dict[str, type[Downsampler]]:
    """Import a plugin file without registering its methods, to load a second version of a plugin.

    Returns:
        The file's methods by name.

    Raises:
        Exception: Whatever the file raises.
    """
    known = dict(_classes)
    _classes.clear()
    try:
        with stdout_to_stderr():
            load_file(path)
        return dict(_classes)
    finally:
        _classes.clear()
        _classes.update(known)


@contextmanager
def isolated() -> Iterator[None]:
    """Restore the registered methods on exit: whatever is registered inside the `with` block is forgotten.

    For tests and other code that loads plugins for a while. tokbench's own methods and those of installed packages
    are registered before the block starts, because Python imports their modules only once. Plugin files that are
    loaded inside the block are imported again the next time they are loaded.
    """
    discover()
    classes, modules = dict(_classes), set(sys.modules)
    try:
        yield
    finally:
        _classes.clear()
        _classes.update(classes)
        forget(modules)


def method_class(name: str) -> type[Downsampler]:
    """The class registered under a name.

    Raises:
        UserError: No method has this name.
    """
    if name not in _classes:
        _, broken = discover()
        if name not in _classes:
            failed = "".join(f"; {one.source} could not be imported: {one.reason}" for one in broken)
            raise UserError(f"unknown method '{name}': {did_you_mean(name, list(_classes))}{failed}")
    return _classes[name]


def bind_parameters(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """All parameters of a method: the given ones, checked and converted, and the defaults of the others.

    Raises:
        UserError: The method or a parameter is unknown, or a value has the wrong type.
    """
    return bind(method_class(name), given, f"method '{name}'")


def create(name: str, **params: Any) -> Downsampler:
    """Create a downsampler by name: `create("token_pooling", algorithm="kmeans")`.

    Raises:
        UserError: The method or a parameter is unknown, or a value is invalid.
    """
    bound = bind_parameters(name, params)
    try:
        with stdout_to_stderr():
            return method_class(name)(**bound)
    except ValueError as error:
        raise UserError(f"method '{name}': {error}") from error


def make(method: str | Downsampler, params: Mapping[str, Any]) -> Downsampler:
    """Make a downsampler from any of the forms that the public functions accept.

    Args:
        method: A name, a name with parameters as in `token_pooling(algorithm=kmeans)`, or a downsampler, which is
            returned as it is.
        params: Further parameters for a name.

    Raises:
        UserError: As for `create`; or a parameter is given twice, or for a downsampler that is already made.
    """
    if isinstance(method, Downsampler):
        if params:
            given = ", ".join(params)
            raise UserError(f"{given}: an existing {type(method).__name__} takes no parameters; pass them to its class")
        return method
    if not isinstance(method, str):
        raise UserError(f"a method is a name, as in 'tome', or a Downsampler; got {method!r}")
    call = parse_call(method)
    if call.positional:
        raise UserError(f"method '{method}': name its parameters, as in {call.name}(parameter=value)")
    twice = sorted(call.named.keys() & params.keys())
    if twice:
        raise UserError(f"method '{method}': parameter '{twice[0]}' is given twice")
    return create(call.name, **call.named, **params)
