"""docs/python.md shows what its code prints."""

from pathlib import Path

import pytest
from python_page import CODE, PAGE, python_page

ROOT = Path(__file__).parents[2]


def test_the_page_shows_what_its_code_prints() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert page.count("```python\n") == len(CODE.findall(page)) >= 5
    quick = page.replace(
        "batches(SIDE, seed=0), 50)", "batches(SIDE, seed=0), 2)"
    )  # the accuracy after it varies anyway
    assert quick != page
    assert python_page(quick) == quick, f"{PAGE} is out of date: make docs"


def block(code: str, output: str | None = None, kind: str = "text") -> str:
    shown = "" if output is None else f"\n```{kind}\n{output}```\n"
    return f"Before.\n\n```python\n{code}```\n{shown}\nAfter.\n"


def test_blocks_run_in_order_and_outputs_are_replaced() -> None:
    page = block("x = 2\n") + block("print(x)\n", "3\n")
    assert python_page(page) == block("x = 2\n") + block("print(x)\n", "2\n")


def test_outputs_that_vary_stay_unless_they_are_renewed() -> None:
    page = block("print(1)\n", "2\n", "text varies")
    assert python_page(page) == page
    assert python_page(page, renew=True) == block("print(1)\n", "1\n", "text varies")


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (block("print(1)\n"), "no block of text follows it"),
        (block("print(1)\n", "1\n2\n", "text varies"), "another number of lines"),
    ],
)
def test_an_output_that_is_not_shown_is_an_error(page: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        python_page(page)


def test_files_are_written_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    python_page(block('open("x", "w").close()\n'))
    assert list(tmp_path.iterdir()) == []
