"""The page of claims: the counts at its top are those of its tables, and every source is linked."""

import html
import re

import pytest
from made_answers import row, write
from website.claims import PAGE, pages
from website.source import Source

from tokbench.names import PLAIN
from tokbench.published.claims import load_claims
from tokbench.published.verdicts import VERDICTS
from tokbench.results import Results

TINY = "deit_tiny_patch16_224"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page beside a run of DeiT-Ti on 100 images, ToMe at the compute that PiToMe's paper gives for it."""
    results = tmp_path_factory.mktemp("results")
    rows = [
        row(PLAIN, "0" * 90 + "-" * 10, 1.25, model=TINY),
        row("tome", "0" * 86 + "-" * 14, 0.8, model=TINY),
    ]
    run = Results(write(results / "photographs", *rows))
    return pages(Source(results, (run,)))[PAGE]


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each table, without its rule."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    split = [[line.strip("|").split("|") for line in block.splitlines()] for block in blocks]
    return [[[cell.strip() for cell in cells] for cells in lines if cells[0].strip() != "---"] for lines in split]


def section(page: str, heading: str) -> str:
    return re.split(r"^##+ ", page.partition(f" {heading}")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_counts_at_the_top_are_those_of_the_tables(page: str) -> None:
    counts = dict.fromkeys(VERDICTS, 0)
    for method in re.split(r"^## ", page, flags=re.MULTILINE)[2:]:
        head, *lines = tables(method)[-1]
        for line in lines:
            cells = dict(zip(head, line, strict=True))
            numbers = [name for name in ("GMACs", "top-1") if cells[name]]
            if cells["verdict"] in VERDICTS:
                counts[cells["verdict"]] += len(numbers)
            else:
                verdicts = dict(part.split(": ") for part in cells["verdict"].split("<br>"))
                assert list(verdicts) == numbers
                for verdict in verdicts.values():
                    counts[verdict] += 1
    first = tables(page)[0]
    assert {cells[0]: int(cells[1]) + int(cells[2]) for cells in first[1:-1]} == counts
    assert int(first[-1][1]) + int(first[-1][2]) == sum(counts.values())


def test_every_published_setting_has_its_line_and_its_source(page: str) -> None:
    claims = load_claims()
    methods = [tables(part)[-1][1:] for part in re.split(r"^## ", page, flags=re.MULTILINE)[2:]]
    assert sum(map(len, methods)) == len(claims)
    for source in claims["source"].unique():
        assert f'href="{html.escape(source.partition(";via=")[0])}"' in page


def test_the_lines_of_a_table_have_as_many_cells_as_its_head(page: str) -> None:
    for lines in tables(page):
        assert {len(cells) for cells in lines} == {len(lines[0])}


def test_a_loss_on_other_images_stands_beside_the_published_one(page: str) -> None:
    losses = section(page, "Losses on other images: 1\n")
    assert "published -3.3 points on ImageNet at 0.79 GMACs; here -4.0" in losses
    assert "on 100 other images at 0.8 GMACs: the interval contains it" in losses
    assert "In 1 of 1 the interval contains the published loss." in losses


def test_sources_that_disagree_are_named_with_both_numbers(page: str) -> None:
    disagreeing = section(page, "Sources that disagree with one another")
    (line,) = [cells for cells in tables(disagreeing)[0] if cells[:3] == ["diffrate", "DeiT-S", "2.9"]]
    assert line[3] == f"{79.58 - 76.8:.2f}"
    assert "PiToMe T5" in line[4]


def test_names_are_not_taken_for_markup(page: str) -> None:
    """Underscores and asterisks of names would be emphasis."""
    cells = [cell for lines in tables(page) for cells in lines for cell in cells]
    shown = re.sub(r'href="[^"]*"', "", "\n".join(cells))
    assert "score&#95;pruning" in shown
    assert not re.search(r"[_*`\[\]]", shown)
