"""Timed sessions, as a comparison keeps and shows them."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tokbench.stats.times import compare_times, floor_of

Run = Callable[..., tuple[int, str, str]]
QUICK = ["--keep", "0.5", "--seeds", "0", "--seconds", "0.02"]
TIMED = ["compare", "--only", "macs,latency", *QUICK, "--batch-size", "1", "--out", "x"]


def records(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    lines = map(json.loads, (folder / "records.jsonl").read_text().splitlines())
    return {line["key"]: line["value"] for line in lines if line["kind"] == kind}


def test_each_session_times_the_plain_model_against_itself(run: Run, tmp_path: Path) -> None:
    run(*TIMED, "--methods", "grid_pooling", "--batch-size", "1,2")
    sessions = records(tmp_path / "x", "noise")
    timed = records(tmp_path / "x", "latency")
    assert len(sessions) == 2  # one a batch size
    assert len(timed) == 4
    assert all(len(session["blocks"]) == 5 for session in sessions.values())
    assert {record["session"] for record in timed.values()} == set(sessions)
    table = pd.read_parquet(tmp_path / "x/table.parquet")
    floors = {
        100 * floor_of([compare_times(block["base_s"], block["other_s"]) for block in session["blocks"]])
        for session in sessions.values()
    }
    assert set(table["noise_floor"]) == floors
    # What is timed later has a session of its own.
    run(*TIMED, "--methods", "grid_pooling,random_selection", "--batch-size", "1,2")
    assert len(records(tmp_path / "x", "noise")) == 4
    assert len(records(tmp_path / "x", "latency")) == 6


def test_a_row_says_how_its_times_were_taken(run: Run, tmp_path: Path) -> None:
    run(*TIMED, "--methods", "grid_pooling")
    table = pd.read_parquet(tmp_path / "x/table.parquet")
    assert table["peak_mib"].isna().all()  # it is measured on request
    assert (table["rounds"] >= 10).all()
    assert set(table["mode"]) == {"eager"}
    assert table["other_load"].between(0, 1).all()
    for row, record in zip(table.to_dict("records"), records(tmp_path / "x", "latency").values(), strict=True):
        assert row["rounds"] == len(record["other_s"])
        assert row["latency_ms"] == pytest.approx(1e3 * np.median(record["other_s"]))
        assert row["plain_latency_ms"] == pytest.approx(1e3 * np.median(record["base_s"]))
        assert row["precision_reached"] == pytest.approx(100 * record["half_width"])
        assert ("the time limit was reached" in row["remarks"]) == (record["half_width"] > 0.01)
        for name, least in (("p90", 64), ("p99", 662)):
            assert math.isnan(row[f"latency_ms_{name}"]) == (row["rounds"] < least)


def test_a_row_says_why_fewer_macs_are_not_faster(run: Run, tmp_path: Path) -> None:
    run(*TIMED, "--methods", "none(attention=eager),grid_pooling")
    table = pd.read_parquet(tmp_path / "x/table.parquet")
    assert list(table["ideal_speedup"]) == pytest.approx(list(table["gmacs"][0] / table["gmacs"]))
    assert list(table["choosing_share"].isna()) == [True, True, False]
    measured = [record.get("choosing", ()) for record in records(tmp_path / "x", "latency").values()]
    assert measured[:2] == [(), ()]
    assert table["choosing_share"][2] == pytest.approx(100 * np.mean(measured[2]))
    assert 0 < table["choosing_share"][2] < 100


def test_a_precise_enough_row_says_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tokbench.toml").write_text("[defaults]\nprecision = 1000\n")
    run(*TIMED, "--methods", "grid_pooling")
    table = pd.read_parquet(tmp_path / "x/table.parquet")
    assert set(table["rounds"]) == {10}
    assert not table["remarks"].str.contains("time was spent").any()


def test_turning_fusion_off_is_a_row_of_its_own(run: Run, tmp_path: Path) -> None:
    plain = ("--limit", "80", "--only", "macs,latency,accuracy")
    code, out, _ = run(*TIMED, *plain, "--methods", "none(attention=eager),grid_pooling")
    assert code == 0
    table = pd.read_parquet(tmp_path / "x/table.parquet")
    fused, eager, method = table.to_dict("records")
    assert (fused["method"], fused["params"], fused["attention_kernel"]) == ("none", "", "fused")
    assert (eager["method"], eager["params"], eager["attention_kernel"]) == ("none", "attention=eager", "eager")
    assert eager["gmacs"] == fused["gmacs"]
    assert eager["params_m"] == fused["params_m"]
    assert eager["top1"] == pytest.approx(fused["top1"], abs=1)
    # The rest is held against the untouched one.
    assert method["gmacs_saved"] == pytest.approx(100 * (1 - method["gmacs"] / fused["gmacs"]))
    assert "none" in out
    assert "attention=eager" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--methods", "none(attention=flash)"],
            "the plain model is 'none', 'none(img_size=192)' or 'none(attention=eager)'",
        ),
        (["--methods", "none(keep=1)"], "the plain model is 'none', 'none(img_size=192)' or 'none(attention=eager)'"),
        (["--mode", "cudagraph", "--device", "cpu"], "needs a CUDA device"),
        (["--mode", "fast"], "mode"),
        (["--seconds", "0"], "seconds"),
        (["--threads", "0"], "threads"),
    ],
)
def test_mistakes_are_told_in_a_line(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run("compare", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_an_adaptive_method_on_noise_is_remarked_on(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tokbench.toml").write_text(
        '[suites.blind]\nmodels = ["digits_deit"]\nmethods = ["ats"]\nonly = ["macs", "latency"]\n'
    )
    run("compare", "blind", "--seconds", "0.02", "--batch-size", "1", "--out", "x", "--keep", "0.5")
    table = pd.read_parquet(tmp_path / "x/table.parquet")
    assert ["name images with --data" in remarks for remarks in table["remarks"]] == [False, True]
    assert set(table["status"]) == {"ok"}


def test_the_plain_model_with_fewer_pixels_is_among_the_methods(run: Run) -> None:
    code, printed, error = run("compare", "--methods", "none(img_size=24)", "--only", "macs", "--plan", "--json")
    assert code == 0, error
    assert [cell["params"] for cell in json.loads(printed)["cells"]] == ["", "img_size=24"]
