"""Checks of counts, answers and the rows themselves: copies of results in which one thing was changed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from result_changes import IMAGES, Json, drop_records, edit_json, edit_plan, flip, key_of, outcomes_of, set_macs

from tokbench.results.store import Store

Run = Callable[..., tuple[int, str, str]]


def test_the_same_results_are_ok(check: Callable[..., tuple[int, Json]]) -> None:
    code, report = check("--require-times")
    assert code == 0
    assert (report["findings"], report["notes"]) == ([], [])
    assert [(row["method"], row["seed"]) for row in report["rows"]] == [
        ("none", None),
        ("grid_pooling", None),
        ("random_selection", 0),
        ("random_selection", 1),
    ]


def test_one_mac_more_is_a_regression_and_one_less_an_improvement(
    check: Callable[..., Any], old: Path, new: Path
) -> None:
    set_macs(new, "grid_pooling", more=1)
    code, report = check()
    assert code == 1
    assert outcomes_of(report, "gmacs") == [("grid_pooling", "regressed")]
    set_macs(old, "grid_pooling", more=2)
    code, report = check()
    assert code == 0
    assert outcomes_of(report, "gmacs") == [("grid_pooling", "improved")]


def test_the_users_threshold_applies(check: Callable[..., Any], new: Path, tmp_path: Path) -> None:
    set_macs(new, "grid_pooling", more=1)
    (tmp_path / "tokbench.toml").write_text("[check]\ngmacs = 0.1\n")
    code, report = check()
    assert code == 0
    assert outcomes_of(report, "gmacs") == [("grid_pooling", "moved")]


def test_seeds_share_one_finding_about_counts(check: Callable[..., Any], new: Path) -> None:
    set_macs(new, "random_selection", more=1)
    code, report = check()
    assert code == 1
    assert outcomes_of(report, "gmacs") == [("random_selection", "regressed")]
    assert report["findings"][0]["row"]["seed"] is None


@pytest.mark.parametrize(("more", "outcome", "expected"), [(0, "regressed", 1), (-1, "moved", 0)])
def test_other_token_counts_must_save_compute(
    check: Callable[..., Any], new: Path, more: int, outcome: str, expected: int
) -> None:
    leaving = [64, 64, 64, 32, 32, 31, 16, 16, 16, 8, 8, 8]
    set_macs(new, "grid_pooling", more=more, tokens=leaving)
    code, report = check()
    assert code == expected
    assert outcomes_of(report, "tokens_per_block") == [("grid_pooling", outcome)]
    finding = next(finding for finding in report["findings"] if finding["column"] == "tokens_per_block")
    assert finding["new"] == "31"
    assert "block 5" in finding["note"]


@pytest.mark.parametrize(
    ("flips", "outcome", "expected"),
    [
        ({"lose": 1}, "regressed", 1),
        ({"lose": 3, "gain": 2}, "regressed", 1),
        ({"lose": 2, "gain": 2}, "moved", 0),
        ({"gain": 1}, "improved", 0),
    ],
)
def test_on_the_same_machine_answers_are_compared_image_by_image(
    check: Callable[..., Any], new: Path, flips: dict[str, int], outcome: str, expected: int
) -> None:
    flip(new, "random_selection", seed=1, **flips)
    code, report = check()
    assert code == expected
    assert outcomes_of(report, "top1") == [("random_selection", outcome)]
    assert report["findings"][0]["row"]["seed"] == 1


@pytest.mark.parametrize("setting", ["device_name", "threads", "torch", "timm", "torchvision", "pillow", "numpy"])
def test_on_different_machines_answers_get_a_paired_test(check: Callable[..., Any], new: Path, setting: str) -> None:
    def change(environment: Json) -> None:
        place = environment["versions"] if setting in environment["versions"] else environment
        place[setting] = "another"

    edit_json(new / "environment.json", change)
    flip(new, "grid_pooling", lose=1)  # of 100 images, so that a loss of 3 points cannot be excluded
    code, report = check()
    assert code == 3
    assert outcomes_of(report, "top1") == [("grid_pooling", "ambiguous")]
    assert f"{setting} " in report["notes"][0]


def test_on_different_machines_equal_answers_are_ok_and_a_large_loss_is_a_regression(
    check: Callable[..., Any], new: Path
) -> None:
    edit_json(new / "environment.json", lambda environment: environment.update(threads=99))
    code, report = check()
    assert (code, report["findings"]) == (0, [])
    flip(new, "grid_pooling", lose=20)
    code, report = check()
    assert code == 1
    assert outcomes_of(report, "top1") == [("grid_pooling", "regressed")]


def test_on_different_machines_a_small_loss_can_be_allowed(
    check: Callable[..., Any], new: Path, tmp_path: Path
) -> None:
    edit_plan(new, lambda content: content["suite"].update(accuracy_batch=IMAGES))
    flip(new, "grid_pooling", lose=1)
    (tmp_path / "tokbench.toml").write_text("[check]\ntop1 = 10\n")
    code, report = check()
    assert code == 0
    assert outcomes_of(report, "top1") == [("grid_pooling", "moved")]
    assert "accuracy_batch" in report["notes"][0]


def test_a_row_that_fails_now_is_a_regression(check: Callable[..., Any], old: Path, new: Path) -> None:
    def fail(directory: Path) -> None:
        wanted = key_of(directory, "macs", "grid_pooling")
        drop_records(directory, lambda line: line["key"] == wanted)
        Store(directory).add("failed", f"macs/{wanted}", {"reason": "RuntimeError: it broke"})

    fail(new)
    code, report = check()
    assert code == 1
    assert outcomes_of(report, "status") == [("grid_pooling", "regressed")]
    assert report["findings"][0]["note"] == "RuntimeError: it broke"
    fail(old)
    assert check()[0] == 0
    shutil.rmtree(new)
    shutil.copytree(old, new)
    drop_records(new, lambda line: line["kind"] == "failed")
    assert check()[0] == 4  # no reason for the missing measurement


def test_a_row_that_works_again_is_an_improvement(check: Callable[..., Any], old: Path) -> None:
    edit_plan(old, lambda content: content["rows"][1].update(failed="RuntimeError: it broke"))
    code, report = check()
    assert code == 0
    assert outcomes_of(report, "status") == [("grid_pooling", "improved")]


def test_the_keep_solved_for_a_budget_does_not_identify_a_row(check: Callable[..., Any], tmp_path: Path) -> None:
    # The keep is solved for the budget, so it changes with the cost of the method.
    for side, keep in (("old", 0.5), ("new", 0.45)):
        solved = {"schedule": "budget(0.7)", "keep": keep}
        edit_plan(tmp_path / side, lambda content, solved=solved: content["rows"][1].update(solved))
    code, report = check()
    assert (code, report["findings"]) == (0, [])
    assert len(report["rows"]) == 4
