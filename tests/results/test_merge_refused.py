"""Directories that do not belong together are refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from measured_parts import edit

from tokbench.errors import UserError
from tokbench.results.merge import merge

Run = Callable[..., tuple[int, str, str]]


def test_exact_measurements_that_disagree_are_refused(copied: Callable[..., list[Path]], tmp_path: Path) -> None:
    for kind in ("macs", "accuracy"):
        shutil.rmtree(tmp_path / "copy-grid", ignore_errors=True)
        shutil.rmtree(tmp_path / "copy-keep-5", ignore_errors=True)
        one, two = copied("grid", "keep-5")
        lines = [json.loads(line) for line in (two / "records.jsonl").read_text().splitlines()]
        for line in lines:
            del line["sum"]  # a line with a wrong checksum would count as missing
        row = next(
            row for row in json.loads((two / "plan.json").read_text())["rows"] if row["method"] == "grid_pooling"
        )
        victim = next(line for line in lines if line["kind"] == kind and line["key"].startswith(row["keys"][kind]))
        victim["value"] = {"outcomes": "-" * 80} if kind == "accuracy" else {**victim["value"], "total": 1}
        (two / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for order in ([one, two], [two, one]):
            with pytest.raises(
                UserError, match=rf"^grid_pooling.* at keep 0.5 in digits_deit: .* disagree on its {kind}"
            ):
                merge(order, tmp_path / "joined")
            assert not (tmp_path / "joined").exists()


def test_rows_measured_under_different_conditions_are_refused(
    copied: Callable[..., list[Path]], tmp_path: Path
) -> None:
    def another(plan: dict[str, Any]) -> None:
        plan["rows"][0]["keys"]["accuracy"] = "0" * 24

    one, two = copied("grid", "random")
    edit(two / "plan.json", another)
    with pytest.raises(
        UserError, match=r"none at keep 1\.0 in digits_deit .* its accuracy depends on tokbench's code, the data"
    ):
        merge([one, two], tmp_path / "joined")
    edit(two / "environment.json", lambda environment: environment.update(device_name="Abacus"))
    with pytest.raises(UserError, match=r"its accuracy depends on device_name .* and Abacus; join"):
        merge([one, two], tmp_path / "joined")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("dtype", "bf16"), ("accuracy_batch", 20), ("site", "after_block"), ("threads", 7)],
)
def test_another_comparison_is_refused(
    copied: Callable[..., list[Path]], tmp_path: Path, setting: str, value: object
) -> None:
    one, two = copied("grid", "random")
    edit(two / "plan.json", lambda plan: plan["suite"].update({setting: value}))
    with pytest.raises(UserError, match=rf"cannot be joined: {setting} is .* in one and {value} in the other"):
        merge([one, two], tmp_path / "joined")


def test_other_images_are_refused(copied: Callable[..., list[Path]], tmp_path: Path) -> None:
    one, two = copied("grid", "random")
    images = pd.read_parquet(two / "images.parquet")
    images.assign(image=images["image"] + "x").to_parquet(two / "images.parquet")
    with pytest.raises(UserError, match="they classified different images"):
        merge([one, two], tmp_path / "joined")
    (two / "images.parquet").unlink()
    with pytest.raises(UserError, match="does not say which images were classified: run its tokbench compare again"):
        merge([one, two], tmp_path / "joined")


@pytest.mark.parametrize(
    ("broken", "listed"),
    [("plan.json", "no results in"), ("environment.json", "is missing"), (None, "no results in")],
)
def test_mistakes_are_reported_in_one_line(
    copied: Callable[..., list[Path]], run: Run, broken: str | None, listed: str
) -> None:
    one, two = copied("grid", "random")
    if broken is None:
        shutil.rmtree(two)
    else:
        (two / broken).unlink()
    code, out, err = run("merge", str(one), str(two), "--out", "joined")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert listed in err
    assert str(two) in err


def test_a_damaged_directory_is_refused(copied: Callable[..., list[Path]], run: Run) -> None:
    one, two = copied("grid", "random")
    (two / "records.jsonl").write_text("nonsense\n")
    code, _, err = run("merge", str(one), str(two), "--out", "joined")
    assert code == 2
    assert "is damaged" in err
