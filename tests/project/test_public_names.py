"""What `import tokbench` offers, to programs, to type checkers and to readers."""

import ast
import inspect
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import tokbench


def test_type_checkers_see_the_same_names_in_the_same_modules() -> None:
    tree = ast.parse(Path(tokbench.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tokbench.")
        for alias in node.names
        if alias.asname == alias.name
    }
    assert seen == {name: f"tokbench.{module}" for name, module in tokbench._HOMES.items()}


def test_every_name_is_defined_where_it_is_said_to_be() -> None:
    for name, module in tokbench._HOMES.items():
        assert getattr(tokbench, name).__module__ == f"tokbench.{module}"


def test_dir_lists_the_public_names_and_no_internals() -> None:
    import tokbench.cli  # what was imported becomes an attribute of the package

    assert [name for name in dir(tokbench) if not name.startswith("__")] == sorted(tokbench.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'tokbench' has no attribute 'reduec'"):
        tokbench.reduec  # noqa: B018


def test_help_describes_every_public_name() -> None:
    text = pydoc.plain(pydoc.render_doc(tokbench))
    for name in tokbench.__all__:
        value = getattr(tokbench, name)
        assert f"class {name}(" in text if inspect.isclass(value) else f"    {name}(" in text, name
        assert inspect.getdoc(value), name
    assert "_HOMES" not in text
    assert "_PUBLIC" not in text


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, tokbench; dir(tokbench); sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
