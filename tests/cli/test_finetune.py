"""`tokbench finetune` on the digits: what it writes, what a second run does, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from tokbench.finetune.recipes import load_recipe
from tokbench.results.training import training_logs

Run = Callable[..., tuple[int, str, str]]

SMALL = ("--models", "digits_deit_16", "--keep", "0.5", "--limit", "100", "--device", "cpu", "--threads", "1")
ONCE = (*SMALL, "--epochs", "1", "--batch", "128", "--out", "x")

FAILING = """
import torch

from tokbench import Downsampler, register


@register("failing")
class Failing(Downsampler):
    '''Fails in training only.'''

    def forward(self, tokens, keep, context):
        if self.training:
            raise ValueError("I never learn")
        return tokens.select(torch.arange(keep).expand(len(tokens.x), -1))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_from_training_to_a_table_with_fine_tuned_rows(run: Run, tmp_path: Path) -> None:
    command = ("finetune", "--methods", "evit,sinkhorn", *ONCE)
    code, out, err = run(*command)
    assert code == 0, err
    assert [line for line in err.splitlines() if line.startswith("cell ")][1].startswith("cell 2 of 3: evit at keep 0.5")
    assert "\x1b" not in out + err  # into a pipe go plain lines
    assert max(map(len, out.splitlines())) <= 80
    logs = {cell.method: (cell, log) for cell, log in training_logs(tmp_path / "x")}
    assert set(logs) == {"none", "evit", "sinkhorn"}
    for cell, log in logs.values():
        assert cell.before is not None
        assert log["top1"].dropna().iloc[-1] == cell.after
    written = contents(tmp_path / "x/checkpoints")

    code, _, err = run(*command)
    assert code == 0
    assert "3 of them done before" in err
    assert contents(tmp_path / "x/checkpoints") == written

    code, _, err = run(
        *("compare", "--models", "digits_deit_16", "--methods", "evit,sinkhorn", "--keep", "0.5", "--limit", "100"),
        *("--checkpoint", "x", "--only", "accuracy", "--out", "y"),
    )
    assert code == 0, err
    table = pd.read_parquet(tmp_path / "y/table.parquet")
    tuned = table[table["regime"] == "fine-tuned"].set_index("method")
    assert set(tuned.index) == {"none", "evit", "sinkhorn"}
    for method, (cell, _) in logs.items():
        assert tuned.loc[method, "top1"] == pytest.approx(cell.after)


def test_a_plan_trains_nothing(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("finetune", "--methods", "evit", "--plan", *ONCE)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines() if "digits_deit_16" in line] == ["none", "evit"]
    assert "2 cells by the recipe digits" in out
    assert not (tmp_path / "x").exists()


def test_the_result_as_json(run: Run) -> None:
    code, out, err = run("finetune", "--methods", "none", "--json", *ONCE)
    assert (code, err.count("\n")) == (0, 1)  # what is about to be done
    [cell] = json.loads(out)
    assert (cell["method"], cell["reason"]) == ("none", "")
    assert 0 < cell["after"] <= 100


def test_a_method_that_fails_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    code, out, _ = run("finetune", "--methods", "failing,evit", "--plugins", "failing.py", *ONCE)
    assert code == 1
    assert "I never learn" in out
    files = [file.name for file in (tmp_path / "x/checkpoints").glob("*.safetensors")]
    assert sorted(name.split("-")[1] for name in files) == ["evit", "none"]


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
        (("--recipe", "harum"), "unknown recipe 'harum': did you mean 'haurum'"),
        (("--recipe", "own.toml"), "recipe 'own.toml' has no field 'epoch': did you mean 'epochs'"),
        (("--recipe", "nothing.toml"), "nothing.toml"),
        (("--recipe", "short"), "there are 797 images to train on, fewer than a batch of 1024"),
        (("--train", "photographs"), "brings its own training images"),
        (("--set-apart", "0.5"), "brings its own training images"),
        (("--schedule", "searched(0.7)"), "searched"),
        (("--methods", "evitt"), "did you mean 'evit'"),
        (("--methods", "none(attention=eager)"), "the plain model is only trained as it is"),
        (("--lr", "0"), "lr"),
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


def test_other_epochs_change_what_counts_epochs_in_proportion() -> None:
    recipe = load_recipe("dynamicvit", {"epochs": 6})
    assert (recipe.epochs, recipe.frozen_epochs) == (6, 1)
    assert load_recipe("haurum", {"epochs": 3}).warm_up_epochs == pytest.approx(2)
    assert load_recipe("haurum", {"epochs": 3, "warm_up_epochs": 1}).warm_up_epochs == 1
    assert load_recipe("haurum", {}) == load_recipe("haurum")
