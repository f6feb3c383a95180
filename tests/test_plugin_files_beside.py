"""What a plugin imports from the files next to it: that it gets its own, and that its digest covers them."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_files import Write, writer

from tokbench import registry
from tokbench.plugins import Origin, import_again, origin_of
from tokbench.sources import source_digest, sources_of

NUMBER = "NUMBER = {}\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


def number_of(name: str) -> int:
    """What the method's module has imported, or imports when asked."""
    module = sys.modules[registry.method_class(name).__module__]
    return module.number() if hasattr(module, "number") else module.NUMBER


IMPORTS = [
    "from _scores import NUMBER",
    "from ._scores import NUMBER",
    "from . import _scores\nNUMBER = _scores.NUMBER",
    "import _scores\nNUMBER = _scores.NUMBER",
    "import _scores as other\nNUMBER = other.NUMBER",
    "def number():\n    from _scores import NUMBER\n    return NUMBER",
    "def number():\n    import _scores\n    return _scores.NUMBER",
    "from sub.deep import NUMBER",
    "from .sub.deep import NUMBER",
    "import sub.deep\nNUMBER = sub.deep.NUMBER",
    "import sub.deep as other\nNUMBER = other.NUMBER",
    "from sub import deep\nNUMBER = deep.NUMBER",
    "from through import NUMBER",
    "from importlib import import_module\nNUMBER = import_module('._scores', __package__).NUMBER",
]


@pytest.mark.parametrize("package", [True, False])
@pytest.mark.parametrize("code", IMPORTS)
def test_two_folders_have_files_of_the_same_names(write: Write, tmp_path: Path, code: str, package: bool) -> None:
    for number, folder in enumerate("ab", start=1):
        write(f"{folder}/mine.py", f"own_{folder}", more=code)
        write(f"{folder}/_scores.py", more=NUMBER.format(number))
        write(f"{folder}/through.py", more="from _scores import NUMBER\n")
        write(f"{folder}/sub/deep.py", more="from _scores import NUMBER\n")
        if package:
            write(f"{folder}/sub/__init__.py")
    classes, broken = registry.discover([tmp_path / "a", tmp_path / "b"])
    assert broken == ()
    assert (number_of("own_a"), number_of("own_b")) == (1, 2)
    assert not {"_scores", "sub", "through", "mine"} & set(sys.modules)
    for folder in "ab":
        files = {file.relative_to(tmp_path).as_posix() for file in sources_of(classes[f"own_{folder}"])}
        used = {f"{folder}/mine.py", f"{folder}/_scores.py"}
        assert used <= files <= used | {f"{folder}/{name}" for name in ("through.py", "sub/deep.py", "sub/__init__.py")}


@pytest.mark.parametrize("code", IMPORTS)
def test_an_edit_of_a_file_that_is_imported_changes_the_digest(write: Write, tmp_path: Path, code: str) -> None:
    write("mine.py", "measured", more=code)
    write("through.py", more="from _scores import NUMBER\n")
    write("sub/deep.py", more="from _scores import NUMBER\n")
    write("other.py", "unrelated")
    helper = write("_scores.py", more=NUMBER.format(1))
    write("_unrelated.py", more=NUMBER.format(1))
    cls = registry.discover([tmp_path])[0]["measured"]
    before = source_digest(cls)
    for unrelated in ("_unrelated.py", "other.py", "new.py", "notes.txt"):
        write(unrelated, more="# edited\n")
    assert source_digest(cls) == before
    helper.write_text(NUMBER.format(2))
    assert source_digest(cls) != before
    helper.write_text(NUMBER.format(1))
    assert source_digest(cls) == before


def test_the_digest_is_the_same_in_another_folder(write: Write, tmp_path: Path) -> None:
    for folder in "ab":
        write(f"{folder}/mine.py", "moved", more="from _scores import NUMBER\n")
        write(f"{folder}/_scores.py", more=NUMBER.format(1))
    digests = {source_digest(registry.load_apart(tmp_path / folder / "mine.py")["moved"]) for folder in "ab"}
    assert len(digests) == 1


def test_code_for_type_checkers_is_no_part_of_a_method(write: Write) -> None:
    code = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from _scores import NUMBER\n"
    file = write("mine.py", "typed", more=code)
    write("_scores.py", more=NUMBER.format(1))
    assert set(sources_of(registry.discover([file])[0]["typed"])) == {file}


def test_a_module_on_the_path_is_part_of_the_digest(write: Write, tmp_path: Path, monkeypatch) -> None:
    helper = write("path/package_of_a_test/inner.py", more=NUMBER.format(1))
    start = write("path/package_of_a_test/__init__.py")
    code = "def number():\n    from package_of_a_test import inner\n    return inner.NUMBER\n"
    file = write("mine.py", "from_path", more=code)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    cls = registry.discover([file])[0]["from_path"]
    assert set(sources_of(cls)) == {file, helper, start}
    before = source_digest(cls)
    try:
        assert number_of("from_path") == 1
        assert source_digest(cls) == before  # whether it was imported yet does not matter
    finally:
        for name in [name for name in sys.modules if name.startswith("package_of_a_test")]:
            del sys.modules[name]
    helper.write_text(NUMBER.format(2))
    assert source_digest(cls) != before


def test_a_method_that_builds_on_another_is_measured_again_when_that_changes(write: Write) -> None:
    more = "from tokbench.methods.tome import ToMe\n"
    file = write("mine.py", "built_on", more=more)
    names = set(sources_of(registry.discover([file])[0]["built_on"]).values())
    assert names == {"mine", "tokbench.methods.tome"}


def test_installed_packages_keep_their_names(write: Write, tmp_path: Path) -> None:
    for name in ("torch", "tokbench", "random"):
        write(f"{name}.py", more="raise RuntimeError('the wrong one')\n")
    file = write("mine.py", "sound", more="import random, torch\nfrom torch.nn import functional\n")
    classes, broken = registry.discover([file])
    assert broken == ()
    assert set(sources_of(classes["sound"])) == {file}


def test_a_file_that_python_finds_anyway_is_not_imported_twice(write: Write, tmp_path: Path, monkeypatch) -> None:
    write("shared_of_a_test.py", more="class Shared: ...\n")
    file = write("mine.py", "on_path", more="import shared_of_a_test\nNUMBER = shared_of_a_test\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    cls = registry.discover([file])[0]["on_path"]
    assert sys.modules["shared_of_a_test"] is sys.modules[cls.__module__].NUMBER
    other = write("old/mine.py", "on_path", more="import shared_of_a_test\nNUMBER = shared_of_a_test\n")
    write("old/shared_of_a_test.py", more="class Shared: ...\n")
    try:
        old = registry.load_apart(other)["on_path"]
        assert Path(sys.modules[old.__module__].NUMBER.__file__) == tmp_path / "old/shared_of_a_test.py"
    finally:
        del sys.modules["shared_of_a_test"]


def test_a_version_apart_has_the_files_of_its_own_folder(write: Write, tmp_path: Path) -> None:
    for number, folder in enumerate(("now", "old")):
        write(f"{folder}/mine.py", "versioned", more="from _scores import NUMBER\n")
        write(f"{folder}/_scores.py", more=NUMBER.format(number))
    now = registry.discover([tmp_path / "now"])[0]["versioned"]
    old = registry.load_apart(tmp_path / "old/mine.py")["versioned"]
    assert [sys.modules[cls.__module__].NUMBER for cls in (now, old)] == [0, 1]
    assert source_digest(now) != source_digest(old)


def test_a_file_that_is_mended_with_its_plugin_is_imported_again(write: Write) -> None:
    write("_scores.py", more=NUMBER.format(1))
    file = write("mine.py", "fixed", more="from _scores import NUMBER\nraise RuntimeError\n")
    assert registry.discover([file])[1]
    write("_scores.py", more=NUMBER.format(2))
    write("mine.py", "fixed", more="from _scores import NUMBER\n")
    assert registry.discover([file])[1] == ()
    assert number_of("fixed") == 2


@pytest.mark.parametrize("helper", ["raise RuntimeError('in the helper')", "import nothing_of_this_name", "def f(:"])
def test_a_broken_file_beside_breaks_its_plugins_alone(write: Write, tmp_path: Path, helper: str) -> None:
    write("_scores.py", more=helper)
    bad = write("bad.py", "bad", more="from _scores import NUMBER\n")
    write("fine.py", "fine")
    classes, broken = registry.discover([tmp_path])
    assert "fine" in classes
    assert [one.source for one in broken] == [str(bad)]


def test_importing_leaves_no_files_behind(write: Write, tmp_path: Path) -> None:
    write("_scores.py", more=NUMBER.format(1))
    write("mine.py", "tidy", more="from _scores import NUMBER\n")
    registry.discover([tmp_path])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["_scores.py", "mine.py"]


def number_elsewhere(origin: Origin, name: str) -> int:
    import_again(origin)
    return number_of(name)


@pytest.mark.parametrize("at", ["mine.py", "my-own.py", "2nd.py", "with.dot.py", "_registers.py", "sub/_registers.py"])
def test_another_process_imports_the_same_module(write: Write, tmp_path: Path, at: str) -> None:
    write("_scores.py", more=NUMBER.format(3))
    write(at, "elsewhere", more="from _scores import NUMBER\n")
    if "_registers" in at:
        write("mine.py", more=f"import {at.removesuffix('.py').replace('/', '.')}\n")
    registry.discover([tmp_path])
    origin = origin_of(registry.method_class("elsewhere").__module__)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(number_elsewhere, (origin, "elsewhere")) == 3


def test_the_digest_of_a_class_without_a_file_is_that_of_its_code() -> None:
    code = "from tokbench import Downsampler\nfrom tokbench.sources import source_digest\n"
    code += "class Mine(Downsampler):\n    pass\nprint(source_digest(Mine))"
    digests = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert len(digests) == 1
