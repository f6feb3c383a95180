"""A budget's keep: found in few costs, the nearest there is, or refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench import DownsampledViT, Schedule, create
from tokbench.errors import UserError
from tokbench.measure.budget import STEPS, OutOfReachError, solve_keep
from tokbench.measure.macs import count_macs
from tokbench.report.labels import series
from tokbench.results import load
from tokbench.schedule_text import split_schedules, takes_keep


def steps(tokens, stages):
    """What a few reductions to ceil(keep * N) leave, squared tokens included, as a share of no reduction."""

    def cost(keep):
        n, total = tokens, tokens + tokens**2 / 50
        for _ in range(stages):
            n = math.ceil(round(keep * STEPS) * n / STEPS)
            total += n + n**2 / 50
        return total / ((stages + 1) * (tokens + tokens**2 / 50))

    return cost


@settings(max_examples=60, deadline=None)
@given(tokens=st.integers(2, 300), stages=st.integers(1, 6), target=st.floats(0.05, 0.99))
def test_the_nearest_keep_is_found_in_at_most_14_costs(tokens: int, stages: int, target: float) -> None:
    cost = steps(tokens, stages)
    asked = []

    def counted(keep):
        asked.append(keep)
        return cost(keep)

    nearest = min(abs(cost(i / STEPS) - target) for i in range(1, STEPS, 3))
    try:
        keep = solve_keep(counted, target)
    except OutOfReachError:
        assert nearest > 0.01 * target - 1e-12
    else:
        missed = abs(cost(keep) - target)
        assert missed <= 0.01 * target
        assert missed <= max(nearest + 1e-12, 0.0025 * target)
        assert keep == round(keep, 4)
    assert len(asked) == len(set(asked)) <= 14


def test_a_close_keep_ends_the_search() -> None:
    asked = []

    def cost(keep):
        asked.append(keep)
        return keep

    assert solve_keep(cost, 0.5) == 0.5
    assert asked == [0.5]


def test_what_cannot_be_reached_is_told_in_one_line() -> None:
    def half_at_most(keep):
        return max(keep, 0.5)

    with pytest.raises(
        UserError, match=r"within 1% of the budget 0\.3: the nearest that can be reached is 0\.5"
    ) as error:
        solve_keep(half_at_most, 0.3)
    assert "\n" not in str(error.value)


def test_a_cost_that_falls_back_at_keep_one_is_no_trap() -> None:
    def overhead(keep):
        return 1.0 if keep > 0.99 else 0.1 + keep

    assert overhead(solve_keep(overhead, 0.7)) == pytest.approx(0.7, rel=0.01)


def test_deits_gmacs_with_the_methods_own_are_within_one_percent() -> None:
    image = torch.zeros(1, 3, 224, 224)
    vit = timm.create_model("deit_tiny_patch16_224", pretrained=False)
    plain = count_macs(DownsampledViT(vit).eval(), image).total

    def cost(keep):
        model = DownsampledViT(vit, create("score_pruning"), Schedule.stages(keep)).eval()
        return count_macs(model, image).total / plain

    assert cost(solve_keep(cost, 0.7)) == pytest.approx(0.7, rel=0.01)


@pytest.mark.parametrize("text", ["budget(0.7)", "budget(0.55,at=2-5)"])
def test_a_budget_is_written_as_it_is_read(text: str) -> None:
    assert str(Schedule.parse(text)) == text
    assert str(Schedule.parse(text, 0.6342)) == text
    assert Schedule.parse(text, 0.6342).target(0, 196) == 125
    assert not takes_keep(text)


def test_the_default_depths_go_without_saying() -> None:
    assert str(Schedule.parse("budget(fraction=0.7,at=3-6-9)")) == "budget(0.7)"
    assert Schedule.parse("budget(0.7)").depths(12) == (3, 6, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budget", "fraction: a value is required"),
        ("budget(1.2)", "between 0 and 1"),
        ("budget(0)", "between 0 and 1"),
        ("budget(much)", "fraction: .*number"),
        ("budget(0.7,3)", "name its arguments"),
        ("budget(0.7,at=6-3)", "ascending"),
        ("stages(3)", "name its arguments"),
    ],
)
def test_a_wrong_budget_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Schedule.parse(text, 0.7 if text.startswith("stages") else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages(at=3-6-9)", ["stages(at=3-6-9)"]),
        ("budget(0.7)", ["budget(0.7)"]),
        ("budget(0.7),budget(0.5)", ["budget(0.7)", "budget(0.5)"]),
        ("budget(0.7, 0.6, 0.5)", ["budget(0.7)", "budget(0.6)", "budget(0.5)"]),
        ("budget(0.7,0.5,at=2-5), every_block(r=3)", ["budget(0.7,at=2-5)", "budget(0.5,at=2-5)", "every_block(r=3)"]),
        ("stages(at=3,6,9),published", ["stages(at=3,6,9)", "published"]),
        ("budget(0.7,0.5,at=2,5)", ["budget(0.7,at='2,5')", "budget(0.5,at='2,5')"]),
    ],
)
def test_several_schedules_are_written_as_a_list(text: str, expected: list[str]) -> None:
    assert split_schedules(text) == expected
    assert split_schedules(",".join(expected)) == expected


def test_an_unsolved_budget_leaves_nothing() -> None:
    with pytest.raises(UserError, match=r"'budget\(0\.7\)' has no keep yet"):
        Schedule.parse("budget(0.7)").target(0, 196)


def test_compare_solves_it_for_each_method(run: Callable[..., tuple[int, str, str]]) -> None:
    budget = ("--schedule", "budget(0.3,at=2-5)", "--only", "macs", "--seeds", "0", "--json")
    code, out, _ = run("compare", "--methods", "random_selection,score_pruning,tome", *budget)
    rows = {row["method"]: row for row in json.loads(out)}
    assert code == 0
    for method in ("random_selection", "score_pruning"):
        assert rows[method]["schedule"] == "budget(0.3,at=2-5)"
        assert rows[method]["gmacs"] == pytest.approx(0.3 * rows["none"]["gmacs"], rel=0.01)
    assert rows["random_selection"]["keep"] != rows["score_pruning"]["keep"]
    assert (rows["tome"]["status"], rows["tome"]["gmacs"]) == ("skipped", None)
    assert "no keep comes within 1% of the budget 0.3" in rows["tome"]["reason"]


def test_several_budgets_are_one_comparison_and_one_curve(run: Callable[..., tuple[int, str, str]]) -> None:
    command = ("--schedule", "budget(0.8,0.6),stages(at=2-5)", "--keep", "0.9,0.5", "--only", "macs", "--json")
    code, out, _ = run("compare", "--methods", "grid_pooling,score_pruning", *command, "--out", "all")
    rows = [row for row in json.loads(out) if row["method"] == "score_pruning"]
    assert code == 0
    assert [row["schedule"] for row in rows] == ["budget(0.8)", "budget(0.6)", *["stages(at=2-5)"] * 2]
    assert [row["keep"] for row in rows[2:]] == [0.9, 0.5]
    plain = json.loads(out)[0]["gmacs"]
    for row, budget in zip(rows, (0.8, 0.6), strict=False):
        assert row["gmacs"] == pytest.approx(budget * plain, rel=0.01)
    assert sorted(set(series(load(Path("all")).table))) == [
        "grid_pooling budget",
        "grid_pooling stages(at=2-5)",
        "none",
        "score_pruning budget",
        "score_pruning stages(at=2-5)",
    ]
