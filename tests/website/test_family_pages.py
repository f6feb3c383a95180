"""The pages of model families list every architecture once, and the runs of their models."""

import re

import pytest
from made_answers import row, write
from website.families import pages
from website.source import Source

from tokbench.names import EMBEDDED_MODELS, PLAIN
from tokbench.published.timm_accuracy import load_accuracies
from tokbench.results import Results
from tokbench.vit.architectures import architecture_names

TINY = "deit_tiny_patch16_224"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages beside a run of DeiT-Ti in which two methods save a third, and one saves half."""
    folder = tmp_path_factory.mktemp("results")
    rows = [
        row(PLAIN, "0" * 90 + "-" * 10, 1.0, model=TINY),
        row("tome", "0" * 80 + "-" * 20, 0.65, model=TINY),
        row("evit", "0" * 85 + "-" * 15, 0.65, model=TINY),
        row("dct", "0" * 60 + "-" * 40, 0.5, model=TINY),
    ]
    run = Results(write(folder / "made", *rows))
    return pages(Source(folder, (run,)))


def test_every_architecture_is_on_one_page(made: dict[str, str]) -> None:
    listed = [
        name
        for page, text in made.items()
        for part in re.findall(r"^## (?:Architectures|Not supported)\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
        for name in re.findall(r"`([\w.]+)`", part)
        if page != "families/index.md"
    ]
    assert sorted(listed) == sorted([*architecture_names(), *EMBEDDED_MODELS])


def test_published_accuracies_are_those_of_timm(made: dict[str, str]) -> None:
    page = made["families/visiontransformer.md"]
    table = load_accuracies()
    known = table[table["dataset"].eq("imagenet-1k")].set_index("model")["top1"]
    shown = {
        cells[1].strip().strip("`"): float(cells[4])
        for line in page.splitlines()
        if len(cells := line.split("|")) == 9 and cells[1].strip().strip("`") in known
    }
    assert shown.keys() == set(known.index)
    assert all(abs(shown[name] - top1) <= 0.05 + 1e-9 for name, top1 in known.items())


def test_the_best_rows_of_a_run_save_what_they_must(made: dict[str, str]) -> None:
    line = next(line for line in made["families/visiontransformer.md"].splitlines() if f">{TINY}</a>" in line)
    plain, third, half = (cell.strip() for cell in line.split("|")[5:8])
    assert plain == "90.0"
    assert third.startswith("85.0 (-5.0), `evit`")
    assert half.startswith("60.0 (-30.0), `dct`")


def test_a_family_without_runs_says_so(made: dict[str, str]) -> None:
    assert "None of the runs has a model of this family." in made["families/eva.md"]
