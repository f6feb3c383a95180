"""A wrong tokbench.toml gives one line, from the commands that need it and by no other."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from settings_files import SETTINGS, settings_files

from tokbench.config import FILE_NAME

Run = Callable[..., tuple[int, str, str]]

SAMPLE = random.Random(3).sample(list(settings_files()), 30)
# All settings are given on the command line too, which must not hide what is wrong in the file.
COMMAND = ("compare", "--only", "macs", "--methods", "grid_pooling", "--keep", "0.5", "--schedule", "every_block")


def refused(run: Run) -> str:
    """The one line in which a command refuses the file of the current folder."""
    before = sorted(Path().iterdir())
    code, out, err = run(*COMMAND)
    assert (code, out) == (2, "")
    assert err.startswith("tokbench: ")
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()
    assert FILE_NAME in err
    assert len(err) < 1000
    assert sorted(Path().iterdir()) == before
    return err


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in SAMPLE])
def test_a_wrong_file_is_refused_in_one_line(run: Run, content: bytes) -> None:
    Path(FILE_NAME).write_bytes(content)
    refused(run)


@pytest.mark.parametrize("table", ["defaults", "suites.embedded", "suites.latency"])
@pytest.mark.parametrize("key", ["keep", "schedule", "data"])
def test_the_table_and_the_key_are_named_even_if_the_value_is_not_used(run: Run, table: str, key: str) -> None:
    for value in SETTINGS[key]:
        Path(FILE_NAME).write_text(f"[{table}]\n{key} = {value}\n")
        assert f"{FILE_NAME}: [{table}]: {key}" in refused(run)


def _folder(path: Path) -> None:
    path.mkdir()


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _broken_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [_folder, os.mkfifo, _device, _loop, _broken_link])
def test_what_is_no_file_is_refused(run: Run, make: Callable[[Path], None]) -> None:
    make(Path(FILE_NAME))
    refused(run)


def test_commands_that_do_not_need_the_file_do_not_read_it(run: Run) -> None:
    Path(FILE_NAME).write_bytes(b"\xff")
    for command in (["--version"], ["--help"], ["compare", "--help"]):
        code, out, err = run(*command)
        assert (code, err) == (0, "")
        assert out
    for command in (
        ["report", "nowhere"],
        ["plot", "nowhere"],
        ["export", "nowhere"],
        ["merge", "nowhere", "--out", "x"],
    ):
        assert FILE_NAME not in run(*command)[2]
