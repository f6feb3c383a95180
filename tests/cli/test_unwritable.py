"""What cannot be written or read gives one line, if it is the user's; an error of tokbench's own is a bug."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tokbench
from tokbench.cli.output import MAX_MESSAGE, problem_with_file, warn


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["list", "schedules"], ["list", "schedules", "--json"], ["--help"]])
def test_output_to_a_full_disk(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tokbench", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert os.strerror(errno.ENOSPC) in done.stderr
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG]
)
def test_a_file_of_the_user_is_named_with_the_reason(tmp_path: Path, code: int) -> None:
    problem = problem_with_file(OSError(code, os.strerror(code), "results/x"))
    assert problem is not None
    assert "results/x" in problem
    assert os.strerror(code) in problem


@pytest.mark.parametrize(
    "error",
    [
        OSError("anything"),
        OSError(errno.ENOENT, "x"),
        OSError(errno.ECHILD, "x", "results/x"),
        OSError(errno.ENOENT, "x", str(Path(tokbench.__file__).with_name("nowhere"))),
        OSError(errno.ENOENT, "x", str(Path(sys.prefix) / "nowhere")),
        OSError(errno.ENOENT, "x", 3),
    ],
)
def test_any_other_error_is_a_bug(error: OSError) -> None:
    assert problem_with_file(error) is None


def test_a_long_text_is_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    warn(f"invalid '{'x' * 10**6}': cause and fix")
    first = capsys.readouterr().err
    assert len(first) < 200
    assert first.startswith("tokbench: invalid 'xxx")
    assert first.endswith(": cause and fix\n")
    warn("a b " * 10**6)
    assert len(capsys.readouterr().err) < MAX_MESSAGE + 100


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    warn("a\x1b[31m\nb\u202e caf\udce9")
    assert capsys.readouterr().err == "tokbench: a [31m b caf?\n"
