"""Import plugin files by path, together with the files next to them.

A folder with plugins is a package under a name of its own, so that two folders may have a `_scores.py` each. A plugin
imports it as `from ._scores import loudness` or, as scripts do, as `from _scores import loudness`, which is read as the
former. Python's own modules and installed packages keep their names, and so does a file that Python would find anyway,
as from the current folder. The folder's own `__init__.py` is not run.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from tokbench.errors import UserError

OURS = "tokbench"
PLUGIN_MODULE = "tokbench_plugin_"  # the start of the names of the packages that plugin folders are


@dataclass(frozen=True)
class Origin:
    """How another process imports a module again.

    Attributes:
        module: Its name.
        file: Its file, to be imported by path; None if it is imported by name.
        folder: The plugin folder that it belongs to; None if it belongs to none.
    """

    module: str
    file: Path | None = None
    folder: Path | None = None


def plugin_files(path: Path) -> list[Path]:
    """The plugin files at a path: itself, or in a folder every `*.py` except `_*` and `test_*`.

    Raises:
        UserError: There is nothing at the path, or the folder cannot be read.
    """
    if path.is_dir():
        try:
            found = sorted(file for file in path.iterdir() if file.name.endswith(".py"))
        except OSError as error:
            raise UserError(
                f"cannot read {path} ({error.strerror}): make it readable, or name another folder"
            ) from None
        return [file for file in found if not file.name.startswith(("_", "test_"))]
    if path.exists() or path.is_symlink():
        return [path]
    raise UserError(f"no plugin at {path}: [plugins] paths and --plugins must name existing files or folders")


def load_file(path: Path) -> ModuleType:
    """Import a plugin file. A file that is imported already is not imported again, even under another path.

    Raises:
        BaseException: Whatever the file raises.
    """
    real = path.resolve()
    if not real.is_file():
        raise ImportError(f"{path} is not a file")
    for module in list(sys.modules.values()):
        origin = getattr(module, "__file__", None)
        if isinstance(origin, str) and Path(origin).name == real.name and Path(origin).resolve() == real:
            return module
    importlib.invalidate_caches()
    package = _package(real.parent)
    name = f"{package}.{real.stem.replace('.', '%2e')}"
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location(name, real, loader=_Loader(name, str(real)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # The files next to it, too: the user may fix them along with it.
        for one in set(sys.modules) - before:
            if one.startswith(f"{package}."):
                del sys.modules[one]
        raise
    return module


def forget(modules: set[str]) -> None:
    """Forget the plugins, and the files next to them, that were imported beyond the given modules."""
    for name in set(sys.modules) - modules:
        if name.startswith(PLUGIN_MODULE):
            del sys.modules[name]


def origin_of(module: str) -> Origin:
    """How another process imports a module of this one."""
    file = getattr(sys.modules.get(module), "__file__", None)
    folder = folder_of(module)
    by_path = module == "__main__" or (folder is not None and module.count(".") == 1)
    return Origin(module, Path(file) if by_path and file else None, folder)


def import_again(origin: Origin) -> None:
    """Import a module that was imported in another process.

    Raises:
        BaseException: Whatever it raises.
    """
    if origin.file is not None:
        load_file(origin.file)
        return
    if origin.folder is not None:
        _package(origin.folder)
    importlib.import_module(origin.module)


def is_installed(file: str) -> bool:
    """Whether a file belongs to Python or to an installed package, as opposed to code that a user edits."""
    path = Path(file)
    return any(part in ("site-packages", "dist-packages") for part in path.parts) or path.is_relative_to(_STDLIB)


def folder_of(module: str) -> Path | None:
    """The plugin folder that a module belongs to; None if it belongs to none."""
    package = module.partition(".")[0]
    return Path(sys.modules[package].__path__[0]) if package.startswith(PLUGIN_MODULE) else None


def is_beside(name: str, package: str) -> bool:
    """Whether the files of a plugin folder mean one of them by a module's name, rather than what has this name anyway.

    Args:
        name: The module.
        package: The package that the folder is.
    """
    top = name.partition(".")[0]
    folder = folder_of(package)
    own = PathFinder.find_spec(f"{package}.{top}", [str(folder)])
    if own is None or top == OURS or top in sys.stdlib_module_names:
        return False
    spec = spec_of(top)
    other = getattr(sys.modules.get(top), "__file__", None) or (spec.origin if spec else None)
    if other is None:
        return True
    if own.origin is None:  # a folder without __init__.py, which any module goes before
        return False
    return not is_installed(other) and Path(other).resolve() != Path(own.origin).resolve()


def spec_of(name: str, path: Sequence[str] | None = None) -> ModuleSpec | None:
    """Where a module would be imported from, found without importing it or its packages."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path)
        if spec is not None:
            return spec
    return None


def own_names(tree: ast.Module, package: str) -> ast.Module:
    """The code of a file in a plugin folder, with the imports of files next to it as imports from its package."""

    class Renamed(ast.NodeTransformer):
        def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
            if node.level == 0 and node.module and is_beside(node.module, package):
                node.module = f"{package}.{node.module}"
            return node

        def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
            return [ast.copy_location(one, node) for alias in node.names for one in self.statements(alias)]

        def statements(self, alias: ast.alias) -> list[ast.stmt]:
            if not is_beside(alias.name, package):
                return [ast.Import([alias])]
            top = alias.name.partition(".")[0]
            bound: ast.stmt = ast.ImportFrom(package, [ast.alias(top, alias.asname)], 0)
            if top == alias.name:
                return [bound]
            loaded = ast.Import([ast.alias(f"{package}.{alias.name}", alias.asname or top)])
            return [loaded] if alias.asname else [loaded, bound]

    Renamed().visit(tree)
    return ast.fix_missing_locations(tree)


class _Loader(SourceFileLoader):
    """Compiles the file anew each time: an edit within the same second counts, and no `__pycache__` is left behind."""

    def get_code(self, fullname: str) -> CodeType:
        tree = own_names(ast.parse(self.get_data(self.path), self.path), fullname.partition(".")[0])
        return compile(tree, self.path, "exec", dont_inherit=True)


class _Finder:
    """Finds the modules of plugin folders."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if path is None or not name.startswith(PLUGIN_MODULE):
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(name, spec.loader.path)
        return spec


def _package(folder: Path) -> str:
    """The name of the package that a folder of plugins is."""
    name = PLUGIN_MODULE + hashlib.sha256(str(folder).encode(errors="surrogateescape")).hexdigest()[:12]
    if name not in sys.modules:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return name


_STDLIB = Path(sysconfig.get_path("stdlib"))
sys.meta_path.insert(0, _Finder)
