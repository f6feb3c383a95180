"""docs/token-pooling.md shows what its code prints, and its tables are those of the results beside them."""

import contextlib
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from python_page import CODE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/token-pooling.md").read_text(encoding="utf-8")


def cells(first: str) -> list[list[str]]:
    """The lines of the tables whose first cell is this text."""
    lines = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith(f"| {first}")]
    assert lines, f"no table has a line {first}"
    return lines


def test_the_code_prints_what_the_page_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    blocks = list(CODE.finditer(PAGE))
    assert len(blocks) == 2
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block["code"], "docs/token-pooling.md", "exec"), names)
        assert printed.getvalue() == block["output"]


@pytest.mark.parametrize("method", ["token_pooling", "tome", "score_pruning", "random_selection"])
def test_the_photographs_are_those_of_the_table(method: str) -> None:
    table = pd.read_csv(ROOT / "results/photographs/budget/table.csv")
    (line,) = [line for line in cells(f"`{method}`") if len(line) == 3]
    for schedule, cell in zip(["budget(0.7)", "budget(0.5)"], line[1:], strict=True):
        rows = table[(table["method"] == method) & (table["schedule"] == schedule)]
        assert cell.split()[0] == f"{rows['delta_top1'].mean():.1f}"


@pytest.mark.parametrize("method", ["token_pooling", "score_pruning", "importance_sampling", "random_selection"])
def test_the_trained_rows_are_those_of_the_table(method: str) -> None:
    table = pd.read_parquet(ROOT / "results/reference/embedded-finetuned/all/table.parquet")
    trained = table[(table["method"] == method) & (table["regime"] == "fine-tuned")].set_index("keep")
    lines = [line for line in cells(f"`{method}`") if len(line) == 4]
    assert {float(line[1]) for line in lines} == {0.7, 0.5, 0.3}
    for _, keep, _, points in lines:
        row = trained.loc[float(keep)]
        assert re.findall(r"-?[\d.]+", points) == [
            f"{row[name]:.1f}" for name in ("delta_top1", "delta_lo", "delta_hi")
        ]
