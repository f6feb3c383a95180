"""`tokbench versus`, and `--versus` of compare and report, on real results."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import tokbench

REFERENCE = Path(__file__).parents[1] / "stored/digits"
QUICK = ["compare", "--limit", "80", "--keep", "0.5", "--only", "macs,accuracy", "--out", "x"]

Run = Callable[..., tuple[int, str, str]]


def test_the_command_prints_what_python_gives(run: Run) -> None:
    code, out, err = run("versus", str(REFERENCE), "grid_pooling", "--json")
    assert (code, err) == (0, "")
    frame = pd.DataFrame(json.loads(out)).astype({"seeds": "Int64"})
    expected = tokbench.load(REFERENCE).versus("grid_pooling")
    assert list(frame) == list(expected)
    for name in ("method", "keep", "images", "delta_top1", "gained", "verdict", "note"):
        assert frame[name].tolist() == pytest.approx(expected[name].tolist()) or (frame[name] == expected[name]).all()


@pytest.mark.parametrize("methods", [["grid_pooling,random_selection"], ["grid_pooling", "random_selection"]])
def test_several_methods_have_a_table_each(run: Run, methods: list[str]) -> None:
    code, out, _ = run("versus", str(REFERENCE), *methods)
    assert code == 0
    titles = [line for line in out.splitlines() if " · against " in line]
    assert [title.split(" · ")[1] for title in titles] == ["against grid_pooling", "against random_selection"]
    for word in ("won/lost", "verdict", "images", "undecided", "better", "worse"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 100


def test_compare_shows_it_below_its_table(run: Run) -> None:
    measure = [*QUICK, "--methods", "grid_pooling,score_pruning(score=cls)"]
    code, out, err = run(*measure, "--versus", "grid_pooling")
    assert (code, err) == (0, "")
    table, _, against = out.partition("against grid_pooling")
    assert "Δ top-1" in table
    assert "score_pruning" in against
    assert "table.parquet" in against
    code, out, _ = run(*measure, "--versus", "grid_pooling", "--json")
    both = json.loads(out)
    assert [row["method"] for row in both["table"]] == ["none", "grid_pooling", "score_pruning"]
    assert [(row["method"], row["versus"]) for row in both["versus"]] == [("score_pruning", "grid_pooling")]
    assert isinstance(json.loads(run(*measure, "--json")[1]), list)
    alone = run("versus", "x", "grid_pooling")[1]
    assert alone.partition("against grid_pooling")[2].rstrip() in against


def test_a_wrong_method_is_refused_before_anything_is_measured(run: Run, tmp_path: Path) -> None:
    code, _, err = run(*QUICK, "--methods", "grid_pooling", "--versus", "grid_poling")
    assert code == 2
    assert err == "tokbench: this comparison has no method 'grid_poling': did you mean 'grid_pooling'?\n"
    assert list(tmp_path.iterdir()) == []


def test_results_without_accuracies_say_so(run: Run) -> None:
    run(*QUICK, "--methods", "grid_pooling", "--only", "macs")
    code, out, err = run("versus", "x", "grid_pooling")
    assert (code, out) == (2, "")
    assert err == "tokbench: x has no accuracies to compare: measure them with --only macs,accuracy and --data\n"


def test_the_page_has_a_section_for_each_method(run: Run) -> None:
    chosen = "grid_pooling,score_pruning(score=cls)"
    code, _, err = run("report", str(REFERENCE), "--versus", chosen, "--out", "page.html")
    assert (code, err) == (0, "")
    page = Path("page.html").read_text()
    for place, method in enumerate(["grid_pooling", "score_pruning(score=cls)"], start=1):
        assert f'<section id="versus-{place}">' in page
        assert f"<h2>Against {method}</h2>" in page
    assert "--versus &#39;grid_pooling,score_pruning(score=cls)&#39;" in page
    code, _, err = run("report", str(REFERENCE), "--versus", "evit", "--out", "page.html")
    assert code == 2
    assert "has no method 'evit'" in err
