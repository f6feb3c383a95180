"""A training run that is killed at any moment, and started again, gives what an undisturbed one gives."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

PROGRAM = Path(__file__).with_name("killed_training.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run([sys.executable, PROGRAM, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 10  # kills, each of a run before its end
    return folder


def test_a_run_killed_ten_times_gives_the_same_weights_as_one_that_was_not(folder):
    undisturbed, killed = (
        torch.load(folder / name / "result.pt", weights_only=True) for name in ("undisturbed", "killed")
    )
    assert undisturbed["steps"] == killed["steps"] == 60
    assert undisturbed["top1"] == killed["top1"]
    assert undisturbed["weights"].keys() == killed["weights"].keys()
    for name, value in undisturbed["weights"].items():
        assert torch.equal(value, killed["weights"][name]), name


def test_the_log_of_a_killed_run_has_each_row_once(folder):
    columns = ["epoch", "step", "loss", "lr", "top1"]
    undisturbed, killed = (pd.read_csv(folder / name / "log.csv")[columns] for name in ("undisturbed", "killed"))
    assert undisturbed["step"].is_monotonic_increasing
    assert undisturbed["top1"].notna().sum() == 5
    pd.testing.assert_frame_equal(undisturbed, killed)
