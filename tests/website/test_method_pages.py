"""The pages of methods: what they say of a run is what its answers say."""

import itertools
import re
from pathlib import Path

import pandas as pd
import pytest
from made_answers import row, write
from methods_page import own_methods
from website.methods import pages
from website.source import Source
from website.standing import OTHERS, PIXELS, RANDOM, sentence, standings

from tokbench.names import PLAIN
from tokbench.results import Results

MAPS = Path(__file__).parents[2] / "results/maps"
N = 100


def answers(right: int) -> str:
    """The first images right, the others wrong."""
    return "0" * right + "-" * (N - right)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Results:
    rows = [
        row(PLAIN, answers(90), 1.0),
        row(PLAIN, answers(60), 0.5, params="img_size=112"),
        row("tome", answers(80), 0.7),
        row("random_selection", answers(50), 0.7, seed=0),
        row("random_selection", answers(54), 0.7, seed=1),
        row("evit", answers(85), 0.7),
        row("dpc_knn", answers(95), 0.9),
        row("tome", answers(40), 0.5, keep=0.5),
        row("random_selection", answers(40), 0.5, keep=0.5, seed=0),
    ]
    return Results(write(tmp_path_factory.mktemp("results") / "made", *rows))


@pytest.fixture(scope="module")
def made(run: Results) -> dict[str, str]:
    return pages(Source(run.directory.parent, (run,)))


def test_a_setting_is_compared_with_random_selection_and_with_the_best_other_method_that_costs_no_more(
    run: Results,
) -> None:
    high, low = standings(run)["tome"]
    assert (high.setting, high.top1) == ("keep 0.7", pytest.approx(80))
    assert high.against[RANDOM].points == pytest.approx(80 - 52)  # the mean of two seeds
    assert high.against[OTHERS].other == "evit"  # dpc_knn is better, but costs more
    assert high.against[OTHERS].points == pytest.approx(-5)
    assert high.against[RANDOM].decided
    assert high.against[OTHERS].decided
    assert low.against[RANDOM].points == 0
    assert not low.against[RANDOM].decided


def test_the_best_other_method_may_cost_as_much_but_not_more(run: Results) -> None:
    (dearest,) = standings(run)["dpc_knn"]
    assert (dearest.against[OTHERS].other, dearest.against[OTHERS].unequal) == ("evit", True)
    assert standings(run)["evit"][0].against[OTHERS].unequal is False


def test_the_differences_and_intervals_are_those_of_versus(run: Results) -> None:
    compared = run.versus("evit").set_index(["method", "keep"]).loc[("tome", 0.7)]
    found = standings(run)["tome"][0].against[OTHERS]
    assert (found.points, found.lo, found.hi) == tuple(compared[["delta_top1", "delta_lo", "delta_hi"]])


def test_fewer_pixels_are_compared_at_equal_compute(run: Results) -> None:
    low = standings(run)["tome"][1]
    assert low.against[PIXELS].points == pytest.approx(40 - 60)  # at exactly the compute of 112 pixels


def test_a_sentence_counts_the_settings_and_names_the_best_and_the_worst(run: Results) -> None:
    text = sentence(standings(run)["tome"], RANDOM, "Against chance")
    assert text.startswith("Against chance, in 2 settings: above in 1, below in 0, not decided in 1. ")
    assert "Best: keep 0.7: 28.0 [" in text
    assert re.search(r"Worst: keep 0\.5: 0\.0 \[.*\] points, not decided\.$", text)


def test_a_sentence_of_one_setting_says_which_method_it_is_compared_with(run: Results) -> None:
    text = sentence(standings(run)["dpc_knn"], OTHERS, "Against the best")
    assert re.fullmatch(r"Against the best: keep 0\.7: 10\.0 \[.*\] points against `evit`\.", text)


def test_nothing_is_said_where_nothing_was_compared(run: Results) -> None:
    assert sentence(standings(run)["random_selection"], RANDOM, "Against itself") == ""


def test_there_is_a_page_for_each_method_which_the_index_links(made: dict[str, str]) -> None:
    names = set(re.findall(r"\]\((\w+)\.md\)", made["methods/index.md"]))
    assert names == own_methods().keys()
    assert made.keys() == {"methods/index.md", *(f"methods/{name}.md" for name in names)}


def test_a_page_has_its_headings_in_order_and_its_file(made: dict[str, str]) -> None:
    for name in own_methods():
        page = made[f"methods/{name}.md"]
        prose = re.sub(r"^ *```.*?^ *```$", "", page, flags=re.MULTILINE | re.DOTALL)
        levels = [len(level) for level in re.findall(r"^(#+) ", prose, re.MULTILINE)]
        assert levels[0] == 1
        assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
        assert f'    @register("{name}")' in page


def test_methods_that_were_not_measured_say_so(made: dict[str, str]) -> None:
    assert "has not been measured in any of the runs" in made["methods/sit.md"]
    assert "needs trained weights" in made["methods/sit.md"]
    assert "has not been measured in any of the runs" not in made["methods/tome.md"]


def test_the_table_of_a_page_has_the_measured_numbers(made: dict[str, str]) -> None:
    line = next(line for line in made["methods/tome.md"].splitlines() if line.startswith("| keep 0.7 |"))
    assert [cell.strip() for cell in line.split("|")][2:4] == ["30.0", "80.0"]
    assert "**28.0**" in line
    assert "`evit`" in line


def test_a_map_is_shown_with_its_photographers_and_an_alternative_text(tmp_path: Path, run: Results) -> None:
    folder = tmp_path / "maps"
    folder.mkdir()
    for file in MAPS.glob("*.csv"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    made = pages(Source(tmp_path, ()))
    image = re.search(r"!\[([^\]]+)\]\(\.\./maps/tome\.webp\)", made["methods/tome.md"])
    assert image is not None
    authors = pd.read_csv(MAPS / "photographs.csv")["author"]
    assert all(author in made["methods/tome.md"] for author in authors)
    assert ".webp" not in made["methods/sit.md"]


def test_every_method_that_needs_no_training_has_a_small_map() -> None:
    drawn = {file.stem for file in MAPS.glob("*.webp")}
    assert drawn == {name for name, cls in own_methods().items() if not cls.trained}
    assert drawn == set(pd.read_csv(MAPS / "tokens.csv")["method"])
    assert max(file.stat().st_size for file in MAPS.glob("*.webp")) <= 40_000


def test_the_counts_of_launches_cover_every_method() -> None:
    launches = pd.read_csv(MAPS.parent / "launches/launches.csv").set_index("method")["launches"]
    assert own_methods().keys() <= set(launches.index)
    assert (launches >= launches["timm"]).all()
