"""Plugin files, and error messages of broken ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_files import METHOD, Write, error_message, writer

from tokbench import create, registry


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


# Plugin files


def test_files_and_folders_are_loaded_by_path(write: Write):
    alone = write("alone.py", "alone")
    write("folder/one.py", "one")
    write("folder/two.py", "two")
    classes, broken = registry.discover([alone, alone.parent / "folder"])
    assert {"alone", "one", "two", "token_pooling"} <= set(classes)
    assert broken == ()
    assert create("one", ratio="0.25").ratio == 0.25
    assert registry.source_file(classes["one"]) == str((alone.parent / "folder" / "one.py").resolve())


def test_private_and_other_files_are_skipped(write: Write, tmp_path: Path):
    write("_private.py", "private", more="raise RuntimeError")
    write("notes.txt", more="no Python")
    write("deeper/inside.py", "inside")
    write("fine.py", "fine")
    classes, broken = registry.discover([tmp_path])
    assert broken == ()
    assert "fine" in classes
    assert not {"private", "inside"} & set(classes)


def test_a_file_given_twice_is_loaded_once(write: Write, tmp_path: Path):
    file = write(
        "real/counted.py", "counted", more="import builtins\nbuiltins.loads = getattr(builtins, 'loads', 0) + 1\n"
    )
    link = tmp_path / "link.py"
    link.symlink_to(file)
    folder = tmp_path / "folder"
    folder.symlink_to(file.parent, target_is_directory=True)
    import builtins

    try:
        for _ in range(2):
            classes, broken = registry.discover([file, link, file.parent, folder, file.parent / ".." / "real"])
            assert "counted" in classes
            assert broken == ()
        assert builtins.loads == 1
    finally:
        del builtins.loads


def test_two_files_with_the_same_name_are_two_plugins(write: Write):
    paths = [write("a/method.py", "first"), write("b/method.py", "second")]
    classes, broken = registry.discover(paths)
    assert {"first", "second"} <= set(classes)
    assert broken == ()


def test_a_path_that_does_not_exist_is_a_user_error(tmp_path: Path):
    assert "nowhere.py" in error_message(registry.discover, [tmp_path / "nowhere.py"])


# Broken files


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("def f(:", "SyntaxError"),
        ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("raise ValueError", "ValueError"),
    ],
)
def test_a_broken_file_affects_only_its_own_methods(write: Write, tmp_path: Path, code: str, reason: str):
    write("a_fine.py", "fine_before")
    bad = write("b_bad.py", "half_done", more=code) if "def f(" not in code else write("b_bad.py", more=code)
    write("c_fine.py", "fine_after")
    for _ in range(2):  # the second call gives the same result
        classes, broken = registry.discover([tmp_path])
        assert {"fine_before", "fine_after", "token_pooling"} <= set(classes)
        assert "half_done" not in classes
        (only,) = broken
        assert Path(only.source) == bad
        assert only.reason.startswith(reason)
        assert len(only.reason.splitlines()) == 1
    assert not [name for name in sys.modules if "b_bad" in name]


def test_a_fixed_file_is_loaded(write: Write):
    file = write("fixed.py", "fixed", more="raise RuntimeError")
    assert registry.discover([file])[1]
    write("fixed.py", "fixed")
    classes, broken = registry.discover([file])
    assert "fixed" in classes
    assert broken == ()


def test_a_broken_entry_point_is_reported_and_others_are_loaded(write: Write, tmp_path: Path, monkeypatch):
    write("site/good_plugin_of_a_test.py", "from_entry_point")
    write("site/bad_plugin_of_a_test.py", "lost", more="raise RuntimeError('no')")
    info = tmp_path / "site" / "plugin_of_a_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-a-test\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tokbench.methods]\ngood = good_plugin_of_a_test\nbad = bad_plugin_of_a_test\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    try:
        classes, broken = registry.discover()
        assert "from_entry_point" in classes
        assert "lost" not in classes
        assert [(one.source, one.reason) for one in broken] == [("bad = bad_plugin_of_a_test", "RuntimeError: no")]
    finally:
        sys.modules.pop("good_plugin_of_a_test", None)


def test_the_error_for_an_unknown_method_names_broken_plugins(write: Write, tmp_path: Path, monkeypatch):
    write("site/bad_plugin_of_a_test.py", "lost", more="raise RuntimeError('no\\nreason')")
    info = tmp_path / "site" / "plugin_of_a_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-a-test\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tokbench.methods]\nbad = bad_plugin_of_a_test\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert "bad_plugin_of_a_test could not be imported: RuntimeError: no" in error_message(create, "lost")


# Duplicate names


def test_the_error_for_a_duplicate_name_gives_both_files(write: Write):
    first, second = write("first.py", "shared"), write("second.py", "shared")
    with pytest.raises(registry.NameTakenError) as caught:
        registry.discover([first, second])
    message = str(caught.value)
    assert "'shared'" in message
    assert str(first.resolve()) in message
    assert str(second.resolve()) in message
    assert len(message.splitlines()) == 1
    assert registry.source_file(registry.method_class("shared")) == str(first.resolve())


def test_a_built_in_name_cannot_be_used(write: Write):
    mine = write("mine.py", "token_pooling")
    with pytest.raises(registry.NameTakenError) as caught:
        registry.discover([mine])
    assert str(mine.resolve()) in str(caught.value)
    assert "token_pooling.py" in str(caught.value)
    assert registry.method_class("token_pooling").__name__ == "TokenPooling"


# The digest of the source


def test_the_digest_changes_with_the_file(write: Write):
    file = write("digested.py", "digested")
    classes, _ = registry.discover([file])
    before = registry.source_digest(classes["digested"])
    assert registry.source_digest(classes["digested"]) == before
    file.write_text(file.read_text() + "\n# changed\n")
    assert registry.source_digest(classes["digested"]) != before
    assert before != registry.source_digest(classes["token_pooling"])


def test_a_value_error_of_the_constructor_is_a_user_error(write: Write):
    registry.discover([write("strict.py", "strict")])
    assert error_message(create, "strict", ratio=-1) == "method 'strict': ratio=-1.0: at least 0"


# Faults while a plugin is imported

UNPRINTABLE = """
class Odd(Exception):
    def __str__(self):
        {}
raise Odd
"""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("class Own(BaseException): ...\nraise Own('x')", "Own: x"),
        (UNPRINTABLE.format("raise RuntimeError"), "Odd"),
        (UNPRINTABLE.format("raise SystemExit"), "Odd"),
        (UNPRINTABLE.format("return 3"), "Odd"),
        ("raise ValueError('\\n\\n  second line\\nthird')", "ValueError: second line"),
        ("raise ValueError('\\x1b[31mred\\u2028next')", "ValueError: [31mred"),
        ("raise ValueError('\\udcff')", "ValueError"),
        ("def f():\n    f()\nf()", "RecursionError: "),
        ("from .. import anything", "ImportError: "),
        ("from . import nothing_here", "ImportError: "),
        ("import importlib\nimportlib.import_module('_nothing_here')", "ModuleNotFoundError: "),
        ("x = '\\0'", ""),
    ],
)
def test_whatever_a_plugin_raises_is_one_line(write: Write, tmp_path: Path, code: str, reason: str):
    write("bad.py", "lost", more=code)
    write("fine.py", "fine")
    classes, broken = registry.discover([tmp_path])
    assert "fine" in classes
    if not reason:
        assert broken == ()
        return
    (only,) = broken
    assert only.reason.startswith(reason)
    assert only.reason.isprintable()
    assert "lost" not in classes


def test_the_users_own_interrupt_is_not_caught(write: Write):
    file = write("slow.py", "slow", more="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        registry.discover([file])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"x = 'caf\xe9'\n", "SyntaxError: "),
        (b"x = 1\0\n", ""),
        (b"\xff\xfex\0", ""),
        (b"def f(:\n", "SyntaxError: "),
        (b"x = " + b"(" * 300, ""),
        (b"# -*- coding: nothing -*-\n", "SyntaxError: "),
    ],
)
def test_what_is_no_python_source_is_one_line(tmp_path: Path, content: bytes, reason: str):
    file = tmp_path / "bad.py"
    file.write_bytes(content)
    (only,) = registry.discover([file])[1]
    assert only.reason.startswith(reason)
    assert len(only.reason.splitlines()) == 1


def test_source_in_another_encoding_is_read_as_python_does(tmp_path: Path):
    file = tmp_path / "latin.py"
    file.write_bytes("# -*- coding: latin-1 -*-\nWORD = 'café'\n".encode("latin-1"))
    assert registry.load_file(file).WORD == "café"


@pytest.mark.parametrize("name", ["my-own.py", "2nd.py", "a.b.py", "class.py", "größe.py", "with space.py", "torch.py"])
def test_a_plugin_file_may_have_any_name(write: Write, name: str):
    file = write(name, "named")
    classes, broken = registry.discover([file])
    assert broken == ()
    assert Path(registry.source_file(classes["named"])) == file


def test_what_is_no_file_is_one_line_and_the_others_are_loaded(write: Write, tmp_path: Path):
    write("fine.py", "fine")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "link.py").symlink_to(tmp_path / "nowhere.py")
    os.mkfifo(tmp_path / "pipe.py")
    classes, broken = registry.discover([tmp_path])
    assert "fine" in classes
    assert [(Path(one.source).name, one.reason.partition(":")[0]) for one in broken] == [
        (name, "ImportError") for name in ("folder.py", "link.py", "pipe.py")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_one_line(write: Write):
    file = write("closed.py", "closed")
    file.chmod(0)
    (only,) = registry.discover([file])[1]
    assert only.reason.startswith("PermissionError")


def test_a_plugin_that_loads_the_registry_again_under_another_name_harms_no_other(write: Write, tmp_path: Path):
    code = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("second_registry", {registry.__file__!r})
second = importlib.util.module_from_spec(spec)
import json
import os
import subprocess
import sys
sys.modules["second_registry"] = second
spec.loader.exec_module(second)
del sys.modules["second_registry"]
second.register("doubled")(Method)
"""
    write("a.py", "doubled", more=code)
    write("b.py", "fine")
    classes, broken = registry.discover([tmp_path])
    assert broken == ()
    assert {"doubled", "fine"} <= set(classes)


@pytest.mark.parametrize("name", ["none", "all", "class", "None", "True", "lambda", "a b", "3d", "\ufb01ne"])
def test_a_name_with_another_meaning_breaks_its_plugin(write: Write, name: str):
    file = write("named.py", name)
    classes, broken = registry.discover([file])
    assert name not in classes
    assert [one.reason.partition(":")[0] for one in broken] == ["ValueError"]


def test_register_without_a_name_says_how(write: Write):
    file = write("bare.py", more="from tokbench import Downsampler, register\n@register\nclass A(Downsampler): ...\n")
    assert '@register("my_method")' in registry.discover([file])[1][0].reason


# What plugins print

PRINTS = """
import ctypes, os, sys
print("from print")
os.write(1, b"from write")
os.system("echo from a process")
ctypes.CDLL(None).puts(b"from C")
sys.__stdout__.write("from the stream")
"""


@pytest.mark.parametrize("command", [["list", "methods", "--json"], ["verify", "loud.py", "--json"]])
def test_what_a_plugin_prints_is_not_in_the_json(write: Write, tmp_path: Path, command: list[str]):
    printing = "".join(f"        {line}\n" for line in PRINTS.strip().splitlines())
    write("loud.py", more=METHOD.format(name="loud", cls="Loud").replace("        return", f"{printing}        return"))
    write("loud.py", more=PRINTS + (tmp_path / "loud.py").read_text())
    ran = subprocess.run(
        [sys.executable, "-m", "tokbench", *command, *(["--plugins", "loud.py"] if command[0] == "list" else [])],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert any("loud" in (one.get("name"), one.get("method")) for one in json.loads(ran.stdout))
    for source in ("print", "write", "a process", "C", "the stream"):
        assert f"from {source}" in ran.stderr
