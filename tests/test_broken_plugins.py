"""Plugins that fail while they are imported, have odd names, or print."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_files import METHOD, Write, writer

from tokbench import registry


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


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
