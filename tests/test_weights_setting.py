"""The setting `weights`: one file, or one for each of several models."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokbench.config import load_config
from tokbench.errors import UserError
from tokbench.suite import as_lists
from tokbench.weights_setting import (
    check_weights,
    files_of,
    split_checkpoints,
    split_weights,
    weights_of,
    with_paths,
)

A, B = "deit_tiny_patch16_224", "deit_small_patch16_224.fb_in1k"
HUB, FOLDER = "hf-hub:user/name", "local-dir:/data/my model"


@pytest.mark.parametrize(
    ("given", "files"),
    [
        ("a.pth", [(None, "a.pth")]),
        ("random", [(None, "random")]),
        (Path("a b.pth"), [(None, "a b.pth")]),
        ("my,file.pth", [(None, "my,file.pth")]),
        ("./lr=3/a.pth", [(None, "./lr=3/a.pth")]),
        ("/data/lr=3,wd=0.1/a.pth", [(None, "/data/lr=3"), ("wd", "0.1/a.pth")]),  # has to be quoted
        ("'/data/lr=3,wd=0.1/a.pth'", [(None, "/data/lr=3,wd=0.1/a.pth")]),
        ('"lr=3.pth"', [(None, "lr=3.pth")]),
        (f"{A}=a.pth,{B}=b.pth", [(A, "a.pth"), (B, "b.pth")]),
        (f" {A} = a.pth , {B}=random ", [(A, "a.pth"), (B, "random")]),
        (f"{A}=one,two.pth,{B}='x,{A}=y.pth'", [(A, "one,two.pth"), (B, f"x,{A}=y.pth")]),
        (f"{HUB}=a.pth,{FOLDER}=b.pth", [(HUB, "a.pth"), (FOLDER, "b.pth")]),
        ([f"{A}=a.pth", f"{B}=b.pth"], [(A, "a.pth"), (B, "b.pth")]),
        ({A: "a,b.pth", B: Path("lr=3.pth")}, [(A, "a,b.pth"), (B, "lr=3.pth")]),
    ],
)
def test_items_are_read(given: object, files: list[tuple[str | None, str]]) -> None:
    items = split_weights(given)
    assert isinstance(items, tuple)
    assert files_of(items) == files
    assert split_weights(items) == items
    assert split_weights(",".join(items)) == items  # as a command repeats them


@example([(A, "'"), (B, "\r")])  # the quote must not reach into the next item
@example([(A, "a,'"), (B, "\r")])
@given(st.lists(st.tuples(st.sampled_from([A, B, HUB, FOLDER]), st.text(min_size=1)), unique_by=lambda pair: pair[0]))
def test_any_path_is_given_back(pairs: list[tuple[str, str]]) -> None:
    items = split_weights(dict(pairs))
    assert isinstance(items, tuple)
    assert files_of(items) == pairs
    assert not pairs or split_weights(",".join(items)) == items


@pytest.mark.parametrize(
    ("given", "files"),
    [
        ("a.pth,b.pth", [(None, "a.pth"), (None, "b.pth")]),
        ("a.pth, 'b,c.pth'", [(None, "a.pth"), (None, "b,c.pth")]),
        (f"{A}=a.pth,{A}=b.pth,c", [(A, "a.pth"), (A, "b.pth"), (None, "c")]),
        ([Path("a,b"), "c.pth"], [(None, "a,b"), (None, "c.pth")]),
        ({A: ["a.pth", "b,c.pth"], B: Path("d")}, [(A, "a.pth"), (A, "b,c.pth"), (B, "d")]),
    ],
)
def test_several_checkpoints_are_read(given: object, files: list[tuple[str | None, str]]) -> None:
    items = split_checkpoints(given)
    assert isinstance(items, tuple)
    assert files_of(items) == files
    assert split_checkpoints(",".join(items)) == items


@pytest.mark.parametrize("given", ["", f"{A}=", f"{A}=a.pth,{B}=", "''"])
def test_a_path_is_wanted(given: str) -> None:
    with pytest.raises(ValueError, match="names no file"):
        split_weights(given)


def test_an_invalid_escape_is_refused() -> None:
    with pytest.raises(ValueError, match="double its backslashes"):
        split_weights(r"'C:\x.pth'")


def test_a_model_gets_its_own_file() -> None:
    assert weights_of((f"{A}=a.pth",), A) == "a.pth"
    assert weights_of((f"{A}=a.pth",), B) is None
    assert weights_of(("a.pth",), B) == "a.pth"
    assert weights_of(None, A) is None


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ((f"{A}=a.pth", f"{A}=b.pth"), "names a model twice"),
        (("a.pth", f"{A}=b.pth"), "gives a file without its model"),
        (("deit_tiny_patch16_244=a.pth",), f"'deit_tiny_patch16_244', which is not compared: did you mean '{A}'"),
    ],
)
def test_files_without_a_model_are_refused(items: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_weights(items, [A, B])


def test_other_paths_stay_in_their_items() -> None:
    assert with_paths(f"{A}=a.pth,{B}='lr=3.pth'", split_weights, lambda path: f"/data/{path}") == (
        f"{A}=/data/a.pth",
        f"{B}=/data/lr=3.pth",
    )
    assert with_paths(3, split_weights, str.upper) == 3


@pytest.mark.parametrize(
    "written",
    [
        f'weights = "{A}=a.pth,{B}=random"',
        f'weights = ["{A}=a.pth", "{B}=random"]',
        f'weights = {{ {A} = "a.pth", "{B}" = "random" }}',
    ],
)
def test_paths_in_a_settings_file_are_relative_to_it(written: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(f'[suites.own]\nmodels = ["local-dir:m"]\nmethods = ["none"]\n{written}\n')
    suite = load_config(tmp_path / "own.toml").suite("own", {})
    assert files_of(suite.weights) == [(A, str(tmp_path / "a.pth")), (B, "random")]
    assert suite.models == (f"local-dir:{tmp_path / 'm'}",)


def test_python_gives_it_in_any_form() -> None:
    config = load_config()
    for weights in ("a.pth", Path("a.pth"), ["a.pth"]):
        assert config.suite("embedded", as_lists({"weights": weights})).weights == ("a.pth",)
    assert config.suite("embedded", as_lists({"weights": {A: "a.pth"}})).weights == (f"{A}=a.pth",)
    assert config.suite("embedded", {}).weights is None
