"""`tokbench new`: the files that it writes work unchanged, and it overwrites nothing."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from tokbench import registry
from tokbench.conformance import failures
from tokbench.names import SITES

FAMILIES = ("select", "merge", "pool")
Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", SITES)
def test_a_new_method_conforms(run: Run, tmp_path: Path, family: str, site: str):
    code, out, err = run("new", "my_method", "--family", family, "--site", site)
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == ["my_method.py", "test_my_method.py"]
    path = tmp_path / "my_method.py"
    assert failures(path) == []
    assert len(path.read_text().splitlines()) <= 33
    assert registry.create("my_method").site == site
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["my_method.py", "test_my_method.py"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_new_tests_pass(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str):
    run("new", f"my_{family}", "--family", family)
    monkeypatch.syspath_prepend(str(tmp_path))
    tests = runpy.run_path(str(tmp_path / f"test_my_{family}.py"))
    for name in ("test_conformance", "test_example"):
        tests[name]()


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("random_selection", "taken by"),
        ("none", "choose another"),
        ("all", "choose another"),
        ("3x", "identifier"),
        ("my-method", "identifier"),
        ("class", "identifier"),
        ("_mine", "identifier"),
        ("random", "Python module"),
        ("torch", "Python module"),
    ],
)
def test_an_invalid_name_is_rejected(run: Run, tmp_path: Path, name: str, part: str):
    code, out, err = run("new", name)
    assert (code, out) == (2, "")
    assert part in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["my_method.py", "test_my_method.py"])
def test_nothing_is_overwritten(run: Run, tmp_path: Path, there: str):
    (tmp_path / there).write_text("mine")
    code, out, err = run("new", "my_method")
    assert (code, out) == (2, "")
    assert there in err
    assert [file.name for file in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_the_name_of_another_plugin_is_rejected(run: Run, tmp_path: Path):
    run("new", "mine", "--out", "methods")
    (tmp_path / "tokbench.toml").write_text('[plugins]\npaths = ["methods"]\n')
    (tmp_path / "methods" / "test_mine.py").unlink()
    code, _, err = run("new", "mine")
    assert code == 2
    assert "taken by" in err
    assert "mine.py" in err


def test_a_folder_that_cannot_be_created_is_a_user_error(run: Run, tmp_path: Path):
    (tmp_path / "file").write_text("")
    code, _, err = run("new", "my_method", "--out", "file/inside")
    assert code == 2
    assert "--out" in err
