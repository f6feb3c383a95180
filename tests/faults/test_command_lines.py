"""Wrong command lines are refused in one line, before anything is written."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from command_lines import command_lines

SAMPLE = random.Random(3).sample(list(command_lines()), 40)


@pytest.mark.parametrize("arguments", [pytest.param(arguments, id=name) for name, arguments in SAMPLE])
def test_a_wrong_command_line_is_refused_in_one_line(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("tokbench: ")
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()
    assert len(err) < 5000
    assert not list(tmp_path.iterdir())
