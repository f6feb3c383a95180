"""The tables on the first page are those of their runs."""

import re

import pytest
from website.findings import with_tables
from website.source import Source

from tokbench.errors import UserError

BLOCK = """```rows
run = "reference/embedded"
where = "model == 'digits_deit' and keep == 0.5"
columns = ["method", "gmacs_saved", "delta_top1"]
sort = "-gmacs_saved"
first = 3
```
"""


def table(page: str) -> list[list[str]]:
    """The cells of the table, without intervals."""
    lines = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[re.sub(r" <small>.*", "", cell) for cell in line.strip("| ").split(" | ")] for line in lines[1:]]


def test_a_block_becomes_the_rows_it_asks_for(source: Source) -> None:
    page = with_tables(f"Before.\n\n{BLOCK}\nAfter.\n", source)
    (run,) = (one for one in source.runs if source.name(one) == "reference/embedded")
    rows = run.table[run.table["model"].eq("digits_deit") & run.table["keep"].eq(0.5)]
    best = rows.sort_values("gmacs_saved", ascending=False, kind="stable").head(3)
    assert [float(saved) for _, saved, _ in table(page)] == pytest.approx(list(best["gmacs_saved"]), abs=0.05)
    assert [float(delta) for _, _, delta in table(page)] == pytest.approx(list(best["delta_top1"]), abs=0.05)
    assert page.startswith("Before.")
    assert page.endswith("After.\n")
    assert "tokbench compare embedded" in page
    assert "(runs/reference-embedded.md)" in page


def test_other_blocks_stay() -> None:
    text = "```\nrows = 1\n```\n\n```python\nrows = 2\n```\n"
    assert with_tables(text, Source.__new__(Source)) == text


@pytest.mark.parametrize(
    ("changed", "by", "message"),
    [
        ("reference/embedded", "reference/gone", "names the run 'reference/gone'.*choose from .*reference/embedded"),
        ("keep == 0.5", "keep == 0.123", "shows nothing"),
        ("keep == 0.5", "keeps == 0.5", "cannot be read.*keeps"),
        ("delta_top1", "delta", "no column delta"),
        ("-gmacs_saved", "-saved", "cannot be read.*saved"),
        ("first = 3", "last = 3", "is wrong"),
        ("first = 3", "first = ", "is wrong"),
    ],
)
def test_a_block_that_asks_for_what_is_not_there_is_an_error(
    changed: str, by: str, message: str, source: Source
) -> None:
    assert changed in BLOCK
    with pytest.raises(UserError, match=message):
        with_tables(BLOCK.replace(changed, by), source)
