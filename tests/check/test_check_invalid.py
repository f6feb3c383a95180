"""Results that cannot be compared: incomplete, damaged, or of other images; and errors of the user."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from result_changes import drop_records, edit_images, edit_plan, key_of, outcomes_of

Run = Callable[..., tuple[int, str, str]]


def test_a_missing_row_is_invalid_and_an_added_one_is_listed(
    check: Callable[..., Any], run: Run, old: Path, new: Path
) -> None:
    edit_plan(new, lambda content: content["rows"].pop(1))
    code, report = check()
    assert code == 4
    assert "grid_pooling 0.5" in report["findings"][0]["note"]
    code, out, _ = run("check", "old", "--baseline", "new")
    assert code == 0
    assert "only in old, not checked: 1 row (grid_pooling 0.5)" in out


def test_a_kind_of_measurement_left_out_is_invalid(check: Callable[..., Any], new: Path) -> None:
    edit_plan(new, lambda content: content["suite"].update(only=["macs", "accuracy"]))
    code, report = check()
    assert code == 4
    assert "without latency" in report["findings"][0]["note"]


@pytest.mark.parametrize("side", ["old", "new"])
def test_an_unfinished_comparison_is_invalid(check: Callable[..., Any], tmp_path: Path, side: str) -> None:
    wanted = key_of(tmp_path / side, "macs", "grid_pooling")
    drop_records(tmp_path / side, lambda line: line["key"] == wanted)
    code, report = check()
    assert code == 4
    assert f"not measured yet in {side}: 1 row (grid_pooling 0.5)" in report["findings"][0]["note"]


@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("file", ["plan.json", "environment.json", "records.jsonl", "images.parquet"])
def test_a_truncated_file_is_invalid(check: Callable[..., Any], tmp_path: Path, side: str, file: str) -> None:
    path = tmp_path / side / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, report = check()
    assert code == 4
    assert side in report["findings"][0]["note"]


@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("file", ["plan.json", "environment.json", "images.parquet", "."])
def test_a_missing_file_is_invalid(check: Callable[..., Any], tmp_path: Path, side: str, file: str) -> None:
    path = tmp_path / side / file
    if file == ".":
        shutil.rmtree(path)
    else:
        path.unlink()
    code, report = check()
    assert code == 4
    assert side in report["findings"][0]["note"]


def test_answers_to_another_number_of_images_are_invalid(check: Callable[..., Any], new: Path) -> None:
    edit_images(new, lambda images: images[1:])
    code, report = check()
    assert code == 4
    assert "its images are others than its answers'" in report["findings"][0]["note"]


def test_other_images_are_invalid(check: Callable[..., Any], new: Path) -> None:
    edit_images(new, lambda images: images.assign(image="other " + images["image"]))
    code, report = check()
    assert code == 4
    assert outcomes_of(report, "images") == [("", "invalid")]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["check"], "--baseline"),
        (["check", "new"], "--baseline"),
        (["check", "new", "--baseline", "old", "--limit", "5"], "--limit goes with --against"),
        (["check", "new", "--against", "HEAD"], "--against measures both versions itself"),
        (["check", "--against", "HEAD", "--require-times"], "--against measures both versions itself"),
        (["check", "new", "--baseline", "old", "--github"], "GITHUB_STEP_SUMMARY is not set"),
        (["check", "new", "--baseline", "old", "--junit", "nowhere/x.xml"], "cannot write nowhere/x.xml"),
    ],
)
def test_user_errors_take_one_line(
    run: Run, old: Path, new: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], cause: str
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    code, _, err = run(*arguments)
    assert code == 2
    assert err.count("\n") == 1
    assert cause in err


def test_an_unknown_threshold_is_a_user_error(run: Run, old: Path, new: Path, tmp_path: Path) -> None:
    (tmp_path / "tokbench.toml").write_text("[check]\nspedup = 3\n")
    code, _, err = run("check", "new", "--baseline", "old")
    assert code == 2
    assert "unknown key 'spedup'" in err
