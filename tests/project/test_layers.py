"""What may import what, where the import linter does not look."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tokbench

ROOT = Path(__file__).parents[2]


def imported(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every import of a file: the module, and the names taken from it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", tuple(alias.name for alias in node.names)


@pytest.mark.parametrize("file", sorted((ROOT / "methods").glob("*.py")), ids=lambda file: file.stem)
def test_a_method_imports_public_names_and_torch_only(file: Path) -> None:
    for module, names in imported(file):
        if module == "tokbench":
            assert set(names) <= set(tokbench.__all__)
        else:
            assert module.partition(".")[0] in {"torch", *sys.stdlib_module_names}, module


@pytest.mark.parametrize("file", sorted((ROOT / "tokbench").rglob("*.py")), ids=lambda file: file.stem)
def test_no_part_leans_on_the_root_or_knows_a_method(file: Path) -> None:
    for module, names in imported(file):
        if module == "tokbench":  # its parts by name, but nothing of its own
            assert all((ROOT / "tokbench" / f"{name}.py").exists() for name in names)
        assert not module.startswith("tokbench.methods")


def test_every_public_name_is_there() -> None:
    for name in tokbench.__all__:
        assert getattr(tokbench, name).__name__ == name
