"""Where methods come from, and how one is made by name.

A method is registered when its file is imported. Files come from three places: the package `tokbench.methods`, the
installed packages' entry points in the group `tokbench.methods`, and the paths that the user names. A file that does
not import costs its own methods only, and is told of as broken.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from tokbench.downsampler import Downsampler
from tokbench.errors import UserError, did_you_mean
from tokbench.notation import bind, parse_call

METHODS = "tokbench.methods"

_classes: dict[str, type[Downsampler]] = {}

T = TypeVar("T", bound=type[Downsampler])


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be imported."""

    source: str
    reason: str


class NameTakenError(UserError):
    """Two files register the same name."""


def register(name: str) -> Callable[[T], T]:
    """Make a downsampler known under a name: `@register("my_method")`.

    Raises:
        NameTakenError: Another file has registered the name.
        TypeError: The class is no Downsampler.
        ValueError: The name is no identifier.
    """

    def decorate(cls: T) -> T:
        if not (inspect.isclass(cls) and issubclass(cls, Downsampler)):
            raise TypeError(f"@register({name!r}) is for subclasses of tokbench.Downsampler, not {cls!r}")
        if not name.isidentifier():
            raise ValueError(f"a method is called like a Python name, and {name!r} is none")
        taken = _classes.get(name)
        # The same class again is a module that was imported anew, as notebooks do.
        if taken is not None and (source_file(taken), taken.__qualname__) != (
            source_file(cls),
            cls.__qualname__,
        ):
            raise NameTakenError(
                f"the method name '{name}' is taken twice: {source_file(taken)} and {source_file(cls)}; rename one"
            )
        cls.name = name
        _classes[name] = cls
        return cls

    return decorate


def discover(paths: Iterable[Path] = ()) -> tuple[dict[str, type[Downsampler]], tuple[Broken, ...]]:
    """Import every plugin there is.

    Args:
        paths: Files and folders of the user's own; in a folder, `*.py` but for `_*` and `test_*`.

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
            load()
        except NameTakenError:
            raise
        # A plugin is somebody else's code and may fail in any way; the others must not fail with it.
        except (Exception, SystemExit) as error:
            _classes.clear()
            _classes.update(before)
            broken.append(Broken(source, f"{type(error).__name__}: {error}".splitlines()[0]))

    for module in pkgutil.iter_modules(importlib.import_module(METHODS).__path__):
        if not module.name.startswith("_"):
            attempt(module.name, lambda name=module.name: importlib.import_module(f"{METHODS}.{name}"))  # type: ignore[misc]
    for point in importlib.metadata.entry_points(group=METHODS):
        attempt(f"{point.name} = {point.value}", point.load)
    for path in paths:
        for file in _files(path):
            attempt(str(file), lambda file=file: load_file(file))  # type: ignore[misc]
    return dict(sorted(_classes.items())), tuple(broken)


def load_file(path: Path) -> ModuleType:
    """Import one plugin file by its path, once, however the path is written.

    Raises:
        Exception: Whatever the file raises.
    """
    real = path.resolve()
    for module in list(sys.modules.values()):
        origin = getattr(module, "__file__", None)
        if origin and Path(origin).name == real.name and Path(origin).resolve() == real:
            return module
    name = f"tokbench_plugin_{real.stem}_{hashlib.sha256(str(real).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, real)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def load_apart(path: Path) -> dict[str, type[Downsampler]]:
    """Import a plugin file without making its methods known: another version of a file that is loaded already.

    Returns:
        The file's methods by name.

    Raises:
        Exception: Whatever the file raises.
    """
    known = dict(_classes)
    _classes.clear()
    try:
        load_file(path)
        return dict(_classes)
    finally:
        _classes.clear()
        _classes.update(known)


def method_class(name: str) -> type[Downsampler]:
    """The class registered under a name.

    Raises:
        UserError: There is none.
    """
    if name not in _classes:
        _, broken = discover()
        if name not in _classes:
            lost = "".join(f"; {one.source} did not import: {one.reason}" for one in broken)
            raise UserError(f"unknown method '{name}': {did_you_mean(name, list(_classes))}{lost}")
    return _classes[name]


def bind_parameters(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """All of a method's parameters: those given, checked and converted, and the defaults of the rest.

    Raises:
        UserError: The method or a parameter is unknown, or a value of the wrong type.
    """
    return bind(method_class(name), given, f"method '{name}'")


def create(name: str, **params: Any) -> Downsampler:
    """Make a downsampler by name: `create("token_pooling", algorithm="kmeans")`.

    Raises:
        UserError: The method is unknown, or a parameter unknown or wrong.
    """
    bound = bind_parameters(name, params)
    try:
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


def source_file(cls: type) -> str:
    """The file that defines a class."""
    return str(getattr(sys.modules.get(cls.__module__), "__file__", cls.__module__))


def source_digest(cls: type) -> str:
    """A hash of that file: when it changes, the method is measured again."""
    path = Path(source_file(cls))
    content = path.read_bytes() if path.is_file() else cls.__qualname__.encode()
    return hashlib.sha256(content).hexdigest()


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.glob("*.py") if not file.name.startswith(("_", "test_")))
    if path.is_file():
        return [path]
    raise UserError(f"no plugin at {path}: [plugins] paths and --plugins name files and folders that exist")
