"""Runs that disagree on exact values are reported on the site, with the value."""

import json
import shutil
from pathlib import Path

import pytest
from website import leaderboard, runs
from website.source import Source, read_source

from tokbench.results.store import RECORDS

REFERENCE = Path(__file__).parents[2] / "results/reference/embedded"


@pytest.fixture
def two_runs(tmp_path: Path) -> Path:
    """A run twice."""
    for name in ("one", "two"):
        shutil.copytree(REFERENCE, tmp_path / name / "embedded")
    return tmp_path


def alter_an_answer(run: Path) -> None:
    """Turn the first image of the first accuracy from right to wrong; lines without checksums count as old ones."""
    records = [json.loads(line) for line in (run / RECORDS).read_text().splitlines()]
    record = next(one for one in records if one["kind"] == "accuracy")
    assert record["value"]["outcomes"][0] == "0"
    record["value"]["outcomes"] = "-" + record["value"]["outcomes"][1:]
    lines = (json.dumps({name: one[name] for name in ("kind", "key", "value")}) for one in records)
    (run / RECORDS).write_text("\n".join(lines) + "\n")


def pages(source: Source) -> tuple[str, str]:
    return runs.pages(source)["runs/index.md"], leaderboard.pages(source)["leaderboard.md"]


def test_equal_runs_agree(two_runs: Path) -> None:
    index, board = pages(read_source(two_runs))
    assert "All runs here do." in index
    assert "disagree" not in index + board


def test_an_altered_answer_is_reported_on_both_pages(two_runs: Path) -> None:
    alter_an_answer(two_runs / "two/embedded")
    index, board = pages(read_source(two_runs))
    assert "Runs disagree" in board
    (row,) = [line for line in index.split("Runs disagree")[1].splitlines() if "| top1 |" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert {cells[0], cells[1]} == {"one/embedded", "two/embedded"}
    assert cells[-1] == "1"
    assert abs(float(cells[-2]) - float(cells[-3])) == pytest.approx(0.1)
