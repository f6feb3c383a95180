"""The headline across models, on made-up answers of two models whose envelopes can be worked out by hand."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from stored_results import REFERENCE, keep_records, read_records, write_plan, write_records

from tokbench.report.envelope import envelope_headlines, print_envelopes
from tokbench.report.html.page import render_page
from tokbench.results import PlannedRow, Results, load
from tokbench.results.plan import Plan, read_plan

IMAGES = 1000
LARGE, SMALL = "digits_deit", "digits_deit_32"


def marks(right: int, unreadable: int = 0) -> str:
    """Outcomes of which the first so many are right, and the last ones unreadable."""
    return ("0" * right).ljust(IMAGES - unreadable, "-") + "?" * unreadable


class Made:
    """A results directory of rows with made-up compute and outcomes."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(shutil.copytree(REFERENCE, directory))
        keep_records(self.directory, lambda _: False)
        self._plan: Plan = read_plan(self.directory)
        self._rows: list[PlannedRow] = []

    def row(
        self, model: str, gmacs: float, outcomes: str, method: str = "none", seed: int | None = None, params: str = ""
    ) -> None:
        like = next(row for row in self._plan.rows if row.id.method == method)
        number = len(self._rows)
        keys = {"macs": f"macs{number}", "accuracy": f"answers{number}"}
        identity = replace(
            like.id, model=model, seed=seed, params=params, keep=1.0 if method == "none" else gmacs / 100
        )
        self._rows.append(replace(like, id=identity, keys=keys))
        counted = {"total": round(gmacs * 10**9), "method": 0, "tokens": [64] * 12}
        parts = [
            {
                "kind": "accuracy",
                "key": f"answers{number}/{shard.start}",
                "value": {"outcomes": outcomes[shard.start : shard.stop]},
            }
            for shard in self._plan.shards
        ]
        records = [*read_records(self.directory), {"kind": "macs", "key": f"macs{number}", "value": counted}, *parts]
        write_records(self.directory, records)

    def results(self) -> Results:
        write_plan(self.directory, replace(self._plan, rows=tuple(self._rows)))
        return load(self.directory)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Two plain models: 60 % for 4 GMACs, and 90 % for 10."""
    directory = Made(tmp_path / "made")
    directory.row(LARGE, 10, marks(900))
    directory.row(SMALL, 4, marks(600))
    return directory


def test_a_reduced_large_model_in_place_of_a_small_one(made: Made) -> None:
    made.row(LARGE, 2, marks(500), "grid_pooling")
    made.row(LARGE, 4, marks(700), "grid_pooling")
    (headline,) = envelope_headlines(made.results())
    assert headline.models == (SMALL, LARGE)
    assert headline.method == "grid_pooling"
    assert headline.saved[SMALL].estimate == pytest.approx(25)  # 60 % lie half-way between 2 and 4 GMACs
    assert headline.saved[LARGE].estimate == 0
    assert headline.text.startswith("25 % [")
    assert headline.text.endswith(
        f"] fewer MACs at the top-1 of {SMALL} (60.0 %), 0 % [0, 0] at that of {LARGE} (90.0 %)"
    )


def test_a_method_that_loses_nothing_in_the_largest_model(made: Made) -> None:
    made.row(LARGE, 7, marks(900), "grid_pooling")
    (headline,) = envelope_headlines(made.results())
    assert headline.text == f"30 % [30, 30] fewer MACs at the top-1 of {LARGE} (90.0 %)"


def test_seeds_are_averaged(made: Made) -> None:
    for seed, right in enumerate((800, 1000)):
        made.row(LARGE, 7, marks(right), "random_selection", seed)
    (headline,) = envelope_headlines(made.results())
    assert headline.saved[LARGE].estimate == pytest.approx(30)


def test_images_that_a_row_lacks_count_nowhere(made: Made) -> None:
    made.row(LARGE, 7, marks(450, unreadable=500), "grid_pooling")
    (headline,) = envelope_headlines(made.results())
    assert headline.top1 == {LARGE: 100, SMALL: 100}


def test_fewer_pixels_are_one_method_and_other_attention_is_none(made: Made) -> None:
    made.row(LARGE, 7, marks(900), params="img_size=28")
    made.row(SMALL, 2, marks(600), params="img_size=24")
    made.row(SMALL, 1, marks(600), params="attention=eager")
    (headline,) = envelope_headlines(made.results())
    assert headline.method == "fewer pixels"
    assert {model: saved.estimate for model, saved in headline.saved.items()} == pytest.approx({LARGE: 30, SMALL: 50})


@pytest.mark.parametrize("model", [LARGE, "another_vit"])
def test_no_headline_without_two_models_of_a_family(tmp_path: Path, model: str) -> None:
    made = Made(tmp_path / "made")
    made.row(LARGE, 10, marks(900))
    made.row(model, 7, marks(900), "grid_pooling")
    if model != LARGE:
        made.row(model, 9, marks(800))
    results = made.results()
    console = Console(file=io.StringIO())
    print_envelopes(results, console)
    assert envelope_headlines(results) == []
    assert console.file.getvalue() == ""
    assert "Compute saved across models" not in render_page(results)


def test_terminal_and_page_have_a_line_for_each_method(made: Made) -> None:
    made.row(LARGE, 7, marks(900), "grid_pooling")
    made.row(LARGE, 5, marks(900), "score_pruning", params="score=cls")
    results = made.results()
    console = Console(file=io.StringIO(), width=100)
    print_envelopes(results, console)
    lines = console.file.getvalue().splitlines()
    page = render_page(results)
    for headline in envelope_headlines(results):
        assert len([line for line in lines if line.split() == [headline.method, *headline.text.split()]]) == 1
        assert headline.text in page
