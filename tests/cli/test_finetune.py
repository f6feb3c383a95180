"""Training all cells of a suite, and measuring what came of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tokbench.embedded.model import load

Run = Callable[..., tuple[int, str, str]]

BASE = ["finetune", "embedded", "--models", "digits_deit_16", "--limit", "100", "--threads", "1", "--epochs", "2"]
QUICK = [*BASE, "--batch", "192", "--methods", "dynamic_vit,atc", "--keep", "0.5"]

FAILING = """
from tokbench import Downsampler, register


@register("failing_in_training")
class Failing(Downsampler):
    '''Works until it is trained.'''

    def forward(self, tokens, keep, context):
        if self.training:
            raise ValueError("I cannot be trained")
        return tokens.select(tokens.patches.norm(dim=2).topk(keep).indices)
"""


def checkpoints(directory: Path) -> dict[str, bytes]:
    """The content of the weights by the name of the method."""
    files = sorted((directory / "checkpoints").glob("*.safetensors"))
    return {file.name.split("-")[1]: file.read_bytes() for file in files}


def test_compare_measures_what_was_trained_and_the_report_draws_it(run: Run, tmp_path: Path) -> None:
    code, out, err = run(*QUICK, "--out", "x")
    assert code == 0
    assert "3 cells by the recipe digits: about " in err
    assert "cell 3 of 3: atc" in err
    assert "Δ plain" in out
    cells = [json.loads(file.read_text()) for file in (tmp_path / "x/training").glob("*/cell.json")]
    after = {cell["method"]: cell["after"] for cell in cells}
    assert set(after) == {"none", "dynamic_vit", "atc"}

    compare = ["compare", "embedded", "--models", "digits_deit_16", "--limit", "100", "--methods", "dynamic_vit,atc"]
    code, _, _ = run(*compare, "--keep", "0.5", "--only", "macs,accuracy", "--checkpoint", "x", "--out", "x")
    assert code == 0
    table = pd.read_parquet(tmp_path / "x/table.parquet")
    tuned = table[table["regime"] == "fine-tuned"]
    assert dict(zip(tuned["method"], tuned["top1"], strict=True)) == pytest.approx(after)
    before = {cell["method"]: cell["before"] for cell in cells}
    off_the_shelf = table[(table["regime"] == "off-the-shelf") & (table["status"] == "ok")]
    measured = dict(zip(off_the_shelf["method"], off_the_shelf["top1"], strict=True))
    assert measured == pytest.approx({method: before[method] for method in measured})

    assert run("report", "x")[0] == 0
    assert '<section id="training">' in (tmp_path / "x/report.html").read_text()


def test_the_same_command_trains_only_what_is_missing(run: Run, tmp_path: Path) -> None:
    run(*QUICK, "--out", "x")
    first = checkpoints(tmp_path / "x")
    (file,) = (tmp_path / "x/checkpoints").glob("*-atc-*.json")
    file.unlink()  # written last: without it the weights are no checkpoint
    code, out, err = run(*QUICK, "--out", "x")
    assert code == 0
    assert "3 cells by the recipe digits, 2 of them done before or skipped" in err
    assert err.count("epoch 2 of 2") == 1
    assert out.count("\n atc") == out.count("\n dynamic_vit") == 1
    assert checkpoints(tmp_path / "x") == first


def test_a_damaged_checkpoint_is_trained_again(run: Run, tmp_path: Path) -> None:
    command = [*BASE, "--batch", "192", "--methods", "none", "--out", "x"]
    run(*command)
    (file,) = (tmp_path / "x/checkpoints").glob("*.json")
    whole = json.loads(file.read_text())
    del whole["about"]["seed"]
    file.write_text(json.dumps(whole))
    code, _, err = run(*command)
    assert code == 0
    assert "epoch 2 of 2" in err
    assert json.loads(file.read_text())["about"]["seed"] == 0


def test_another_recipe_gives_another_checkpoint(run: Run, tmp_path: Path) -> None:
    command = [*BASE, "--methods", "none", "--out", "x"]
    run(*command, "--batch", "192")
    code, _, err = run(*command, "--batch", "192", "--lr", "1e-3")
    assert code == 0
    assert "done before" not in err
    about = [json.loads(file.read_text())["about"] for file in (tmp_path / "x/checkpoints").glob("*.json")]
    assert sorted(one["recipe"]["lr"] for one in about) == [5e-4, 1e-3]
    assert {(one["epochs"], one["steps"]) for one in about} == {(2, 2 * (797 // 192))}


def test_a_recipe_of_ones_own_leaves_frozen_weights_as_they_were(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "digits"\nepochs = 1\nwarm_up_epochs = 0\nfrozen = ["blocks.0.*"]\n')
    code, _, err = run(*BASE[:-2], "--recipe", "mine.toml", "--batch", "192", "--methods", "none", "--out", "x")
    assert code == 0, err
    (file,) = (tmp_path / "x/checkpoints").glob("*.safetensors")
    weights, pretrained = load_file(file), load("digits_deit_16").state_dict()
    changed = {name for name, value in pretrained.items() if not torch.equal(weights[f"vit.{name}"], value)}
    assert changed
    assert not [name for name in changed if name.startswith("blocks.0.")]
    assert [name for name in changed if name.startswith("blocks.1.")]
    (about,) = (tmp_path / "x/checkpoints").glob("*.json")
    assert json.loads(about.read_text())["about"]["recipe"]["name"] == "mine"


def test_a_method_that_fails_in_training_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    (tmp_path / "failing_in_training.py").write_text(FAILING)
    own = ["--plugins", "failing_in_training.py", "--methods", "failing_in_training,atc", "--keep", "0.5"]
    code, out, err = run(*BASE, "--batch", "192", *own, "--out", "x")
    assert code == 1
    assert "ValueError: I cannot be trained" in out
    assert set(checkpoints(tmp_path / "x")) == {"none", "atc"}
    assert "Traceback" not in err


def test_a_plan_trains_nothing(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(*QUICK, "--plan", "--json", "--seeds", "0,1", "--out", "x")
    assert code == 0
    plan = json.loads(out)
    assert [(cell["method"], cell["seed"], cell["state"]) for cell in plan["cells"]] == [
        (method, seed, "to train") for method in ("none", "dynamic_vit", "atc") for seed in (0, 1)
    ]
    assert plan["recipe"]["epochs"] == 2
    assert plan["estimated_seconds"] > 0
    assert not (tmp_path / "x").exists()


def test_json_has_every_cell_and_nothing_else(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(*BASE, "--batch", "192", "--methods", "ltmp", "--schedule", "budget(0.7)", "--json")
    assert code == 0
    plain, ltmp = json.loads(out)
    assert (plain["method"], plain["reason"]) == ("none", "")
    assert plain["after"] > 50
    assert ltmp["skipped"]
    assert "meets no budget" in ltmp["reason"]
    assert (tmp_path / "results/embedded-finetuned/checkpoints").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "harum"], "unknown recipe 'harum': did you mean 'haurum'?"),
        (["--lr", "0"], "lr"),
        (["--schedule", "searched(0.7)"], "only tokbench compare searches for schedules"),
        (["--train", "somewhere"], "brings its own training images"),
        (["--batch", "4096"], "fewer than a batch of 4096"),
        (["--ray", "nowhere"], "invalid --ray 'nowhere'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run(*BASE, "--methods", "none", *arguments)
    assert code == 2
    assert out == ""
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
