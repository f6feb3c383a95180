"""The table of a training run, and the lines while it runs."""

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from tokbench.finetune.job import Step
from tokbench.report.terminal.trained import render_training, training_table
from tokbench.report.terminal.training import TrainingLines, step_text
from tokbench.results.training import TrainedCell

NONE = TrainedCell("n", "digits_deit", "none", "", "", None, 0, 98.0, 97.5)
TOME = TrainedCell("t", "digits_deit", "tome", "", "stages(at=3-6-9)", 0.5, 0, 90.0, 96.0)
STEP = Step(epoch=1, step=5, steps=20, loss=1.25, lr=1e-3, images_per_second=812.4, seconds_left=75.2)


def text(*cells: TrainedCell) -> str:
    console = Console(file=io.StringIO(), width=100)
    render_training(cells, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_cell_is_compared_with_the_plain_model_of_its_model_and_seed() -> None:
    others = [replace(NONE, seed=1, after=90.0), replace(TOME, seed=1), replace(NONE, model="digits_rope", after=50.0)]
    table = training_table([NONE, TOME, *others, replace(TOME, model="digits_rope", after=None)])
    over = table.loc[table["method"].eq("tome"), "over_plain"].tolist()
    assert over[:2] == [-1.5, 6.0]
    assert math.isnan(over[2])
    assert table.loc[table["method"].eq("none"), "over_plain"].isna().all()


def test_the_table_has_a_line_for_each_trained_cell_and_the_reasons_below() -> None:
    lines = text(NONE, TOME, replace(TOME, keep=0.3, after=None, reason="step 3: the loss is NaN")).splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["method", "keep", "before", "after", "Δ", "plain"],
        ["none", "98.0", "97.5"],
        ["tome", "0.5", "90.0", "96.0", "-1.5"],
    ]
    assert lines[-1] == "failed: tome at keep 0.3, seed 0, in digits_deit: step 3: the loss is NaN"


def test_seeds_and_schedules_are_shown_where_they_differ() -> None:
    found = text(NONE, TOME, replace(NONE, seed=1), replace(TOME, seed=1, schedule="every_block"))
    assert "seed" in found
    assert "tome every_block" in found
    assert "stages" not in text(NONE, TOME)


def test_without_validation_the_table_says_how_to_see_accuracies() -> None:
    assert "name them with --data" in text(replace(NONE, before=None, after=None))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (STEP, "epoch 1 of 3 · loss 1.250 · lr 1.0e-03 · 812 images/s · 0:01:15 left"),
        (
            replace(STEP, epoch=3, top1=97.46, seconds_left=0),
            "epoch 3 of 3 · loss 1.250 · lr 1.0e-03 · 812 images/s · 0:00:00 left · top-1 97.5 %",
        ),
    ],
)
def test_a_step_is_a_line_of_numbers(step: Step, expected: str) -> None:
    assert step_text(step, 3) == expected


def test_lines_tell_of_each_epoch_once() -> None:
    console = Console(file=io.StringIO(), width=100)
    lines = TrainingLines(console, cells=1, epochs=2)
    for number in range(1, 7):
        lines.step(replace(STEP, epoch=1 + (number > 3), step=number, top1=50.0 if number % 3 == 0 else None))
    lines.end(0, TOME)
    printed = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split(" · ")[0].strip() for line in printed] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert all(line.endswith("top-1 50.0 %") for line in printed)
