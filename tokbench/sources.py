"""The files that a method's code is in: its own, and those that it imports from outside installed packages."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import resolve_name
from pathlib import Path
from types import FunctionType, ModuleType

from tokbench.plugins import OURS, folder_of, is_beside, is_installed, spec_of

METHODS = "tokbench.methods"


def source_file(cls: type) -> str:
    """The file that defines a class."""
    return str(getattr(sys.modules.get(cls.__module__), "__file__", cls.__module__))


def comes_with_tokbench(cls: type) -> bool:
    """Whether a method is one of tokbench's own."""
    return cls.__module__.startswith(f"{METHODS}.")


def source_digest(cls: type) -> str:
    """A hash of the files that a class's code is in: when one of them changes, the method is measured again."""
    contents = {name: file.read_bytes() for file, name in sources_of(cls).items()}
    if not contents:  # a class of a notebook
        contents = {cls.__qualname__: _written(cls).encode()}
    if len(contents) == 1:
        return hashlib.sha256(*contents.values()).hexdigest()
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def sources_of(cls: type) -> dict[Path, str]:
    """The files that a class's code is in, each with the name of its module within the plugin's folder.

    They are found in the imports of the files, those within functions too, and in what their modules hold. Installed
    packages are left out, unless the class itself comes from one; so is tokbench, unless the file is a method.
    """
    top = cls.__module__.partition(".")[0]
    found: dict[Path, str] = {}
    seen: set[str] = set()
    waiting = [base.__module__ for base in cls.__mro__]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        file = _file(name)
        if file is None or not _counts(name, file, top):
            continue
        folder = folder_of(name)
        found[file.resolve()] = name.partition(".")[2] if folder else name
        parents = name.split(".")
        waiting += [".".join(parents[:end]) for end in range(1, len(parents))]
        waiting += _imported(name, file)
        waiting += _held(sys.modules.get(name))
    return found


def _counts(name: str, file: Path, top: str) -> bool:
    """Whether a file is part of a method whose class is in the package `top`."""
    if name.partition(".")[0] == OURS:
        return name.startswith(f"{METHODS}.")
    return name.partition(".")[0] == top or not is_installed(str(file))


def _file(name: str) -> Path | None:
    """The file of a module, imported or not; None if there is none."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file) if isinstance(file, str) and Path(file).is_file() else None
    parent = name.rpartition(".")[0]
    path = _folders(parent) if parent else None
    spec = None if parent and path is None else spec_of(name, path)
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _folders(package: str) -> list[str] | None:
    """Where the modules of a package are; None if it is no package."""
    if package in sys.modules:
        path = getattr(sys.modules[package], "__path__", None)
    else:
        parent = package.rpartition(".")[0]
        above = _folders(parent) if parent else None
        spec = None if parent and above is None else spec_of(package, above)
        path = spec.submodule_search_locations if spec else None
    return None if path is None else list(path)


def _imported(name: str, file: Path) -> Iterator[str]:
    """What the code of a module may import; a name that is imported from a package may be a module of it."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    folder = folder_of(name)
    for written in _imports(file.read_bytes()):
        if written.startswith("."):
            if package and len(written) - len(written.lstrip(".")) <= package.count(".") + 1:
                yield resolve_name(written, package)
        elif folder and is_beside(written, name.partition(".")[0]):
            yield f"{name.partition('.')[0]}.{written}"
        else:
            yield written


@lru_cache(maxsize=1024)
def _imports(source: bytes) -> tuple[str, ...]:
    """The imports of a file as it writes them, relative ones with their dots; none if it is not Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # an extension module, or a file that fails when it is imported
        return ()
    found: dict[str, None] = {}
    for node in _running(tree):
        if isinstance(node, ast.Import):
            found |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            names = (f"{start}.{alias.name}" if node.module else f"{start}{alias.name}" for alias in node.names)
            found |= dict.fromkeys((start, *names) if node.module else names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                found[first.value] = None
    return tuple(found)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers read."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield from _running(other)
        else:
            yield from _running(child)


def _held(module: ModuleType | None) -> Iterator[str]:
    """The modules that a module holds, itself or a class or function of them, however they were imported."""
    for value in list(vars(module).values()) if module else ():
        if isinstance(value, ModuleType):
            yield value.__name__
        elif isinstance(value, type | FunctionType) and isinstance(value.__module__, str):
            yield value.__module__


def _written(cls: type) -> str:
    """The code of a class without a file, as far as Python has kept it."""
    try:
        functions = [one for one in vars(cls).values() if isinstance(one, FunctionType)]
        return "\n".join([cls.__qualname__, *map(inspect.getsource, functions)])
    except OSError:
        return cls.__qualname__
