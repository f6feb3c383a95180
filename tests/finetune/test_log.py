"""The log of a training run, and how it goes on after an interruption."""

from pathlib import Path

import pandas as pd
import pytest

from tokbench.finetune.log import Log, Row


def row(step: int, top1: float | None = None) -> Row:
    return Row(1 + (step - 1) // 20, step, 1 / step, 1e-3 * step, 812.5, 0.25 * step, top1)


def written(file: Path, steps: range) -> Path:
    log = Log(file, 0)
    for step in steps:
        log.append(row(step, 12.5 if step % 20 == 0 else None))
    return file


def test_pandas_reads_what_was_appended(tmp_path: Path) -> None:
    table = pd.read_csv(written(tmp_path / "log.csv", range(10, 41, 10)))
    assert list(table) == ["epoch", "step", "loss", "lr", "images_per_second", "seconds", "top1"]
    assert table["epoch"].tolist() == [1, 1, 2, 2]
    assert table["step"].tolist() == [10, 20, 30, 40]
    assert table["loss"].tolist() == pytest.approx([1 / 10, 1 / 20, 1 / 30, 1 / 40], rel=1e-5)  # six digits
    assert table["top1"].isna().tolist() == [True, False, True, False]
    assert table["top1"].dropna().tolist() == [12.5, 12.5]


@pytest.mark.parametrize("state", [0, 5, 10, 20, 25, 40])
def test_going_on_gives_the_log_of_an_uninterrupted_run(state: int, tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.csv", range(10, 61, 10)).read_bytes()
    file = written(tmp_path / "log.csv", range(10, 41, 10))
    log = Log(file, state)
    for step in range(10, 61, 10):
        if step > state:
            log.append(row(step, 12.5 if step % 20 == 0 else None))
    assert file.read_bytes() == whole


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_last_line_that_was_cut_off_is_dropped(cut: int, tmp_path: Path) -> None:
    file = written(tmp_path / "log.csv", range(10, 41, 10))
    file.write_bytes(file.read_bytes()[:-cut])
    Log(file, 40)
    assert pd.read_csv(file)["step"].tolist() == [10, 20, 30]


def test_a_log_that_is_missing_or_empty_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    for name in ("missing.csv", "empty.csv"):
        Log(tmp_path / name, 40).append(row(50))
        assert pd.read_csv(tmp_path / name)["step"].tolist() == [50]
