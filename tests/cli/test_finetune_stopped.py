"""`tokbench finetune` when it is stopped, where its output goes into a pipe, and what it refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file

Run = Callable[..., tuple[int, str, str]]

SMALL = ("--models", "digits_deit_16", "--keep", "0.5", "--limit", "100", "--device", "cpu", "--threads", "1")


def test_into_a_pipe_go_plain_lines_of_80_columns(run: Run) -> None:
    code, out, err = run("finetune", "--methods", "evit", *SMALL, "--epochs", "1", "--batch", "128", "--out", "x")
    assert code == 0, err
    cells = [line for line in err.splitlines() if line.startswith("cell ")]
    assert cells[1].startswith("cell 2 of 2: evit at keep 0.5")
    assert "\x1b" not in out + err
    assert max(map(len, out.splitlines())) <= 80


def test_ctrl_c_says_how_to_resume_and_the_next_run_does(run: Run, tmp_path: Path) -> None:
    command = ("finetune", "--methods", "none", *SMALL, "--epochs", "2", "--out")
    assert run(*command, "whole")[0] == 0
    # If the tests run in the background, they ignore SIGINT, and the child process would too.
    default_sigint = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        [sys.executable, "-m", "tokbench", *command, "x"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_sigint,
    ) as process:
        while process.poll() is None and not list((tmp_path / "x").glob("training/*/log.csv")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1].startswith("tokbench: stopped; ")
    assert err.strip().endswith("run the same command to resume")
    assert "Traceback" not in err
    assert run(*command, "x")[0] == 0
    [whole], [resumed] = ((tmp_path / name / "checkpoints").glob("*.safetensors") for name in ("whole", "x"))
    expected, found = load_file(whole), load_file(resumed)
    assert {name for name in expected if not expected[name].equal(found[name])} == set()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--recipe", "own.toml"), "recipe 'own.toml' has no field 'epoch': did you mean 'epochs'"),
        (("--recipe", "nothing.toml"), "nothing.toml"),
        (("--recipe", "short"), "there are 797 images to train on, fewer than a batch of 1024"),
        (("--set-apart", "0.5"), "brings its own training images"),
        (("--methods", "evitt"), "did you mean 'evit'"),
        (("--methods", "none(attention=eager)"), "the plain model is only trained as it is"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    (tmp_path / "own.toml").write_text('base = "digits"\nepoch = 3\n')
    code, out, err = run("finetune", "--models", "digits_deit_16", "--out", "x", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert told in err
    assert not (tmp_path / "x").exists()


def test_images_to_train_on_have_to_be_named(run: Run) -> None:
    code, out, err = run("finetune", "imagenet", "--models", "deit_tiny_patch16_224")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no images to train on: name them with --train, or let --set-apart 0.5 take a part of --data" in err
