"""`tokbench export`, read by pytest-benchmark."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tokbench.cli import main
from tokbench.report.export import pytest_benchmark_json

Run = Callable[..., tuple[int, str, str]]

COMPARE = [
    *("compare", "--limit", "50", "--seconds", "0.02", "--keep", "0.7,0.5", "--seeds", "0,1", "--batch-size", "4"),
    *("--methods", "grid_pooling,random_selection,dynamic_vit", "--only", "macs,latency,accuracy"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small comparison: a stochastic method with two seeds, and one that is skipped."""
    folder = tmp_path_factory.mktemp("measured") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        patch.setattr(sys, "argv", ["tokbench", *COMPARE, "--out", str(folder)])
        with pytest.raises(SystemExit) as exit_:
            main()
    assert exit_.value.code == 0
    return folder


@pytest.fixture
def exported(results: Path) -> dict[str, Any]:
    return pytest_benchmark_json(results)


def samples(results: Path) -> list[list[float]]:
    """The time samples of the downsampled models, read directly from the file."""
    records = [json.loads(line) for line in (results / "records.jsonl").read_text().splitlines()]
    return [record["value"]["other_s"] for record in records if record["kind"] == "latency"]


def test_pytest_benchmark_reads_and_groups_it(run: Run, results: Path, tmp_path: Path) -> None:
    code, out, err = run("export", str(results), "--format", "pytest-benchmark", "--out", "new.json")
    assert (code, out) == (0, "")
    assert "5 benchmarks" in err
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "new.json", "--columns=median,rounds"]
    read = subprocess.run(
        [*command, "--csv=read.csv"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    for keep, count in (("1", 1), ("0.7", 2), ("0.5", 2)):
        (line,) = [
            line for line in read.stdout.splitlines() if line.rstrip(" -").endswith(f"keep {keep}': {count} tests")
        ]
        assert "digits_deit cpu fp32 batch 4" in line
    # pytest-benchmark's table of the same file has medians in seconds.
    table = pd.read_csv(tmp_path / "read.csv")
    assert sorted(table["median"]) == pytest.approx(sorted(map(statistics.median, samples(results))))
    by_method = subprocess.run(
        [*command, "--group-by=param:method"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert "'method=grid_pooling': 2 tests" in by_method.stdout


def test_two_runs_are_compared_by_name(run: Run, results: Path, tmp_path: Path) -> None:
    run("export", str(results), "--out", "old.json")
    run("export", str(results), "--out", "new.json")
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "old.json", "new.json", "--group-by=fullname"]
    read = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert read.stdout.count("': 2 tests") == 5


def test_each_time_measurement_is_exported_once_with_all_samples(exported: dict[str, Any], results: Path) -> None:
    assert [one["stats"]["data"] for one in exported["benchmarks"]] == samples(results)
    for one in exported["benchmarks"]:
        data = one["stats"]["data"]
        assert one["stats"]["rounds"] == len(data) >= 10
        assert one["stats"]["mean"] == pytest.approx(statistics.fmean(data))
        assert one["stats"]["min"] == min(data)
    names = [one["fullname"] for one in exported["benchmarks"]]
    assert len(set(names)) == len(names)
    assert "dynamic_vit" not in str(names)  # skipped, as it needs fine-tuned weights


def test_values_of_the_table_are_exported_with_the_times(exported: dict[str, Any], results: Path) -> None:
    table = pd.read_parquet(results / "table.parquet")
    for one in exported["benchmarks"]:
        told, extra = one["params"], one["extra_info"]
        own = table[(table["method"] == told["method"]) & (table["keep"] == told["keep"])]
        assert len(own) == (2 if told["method"] == "random_selection" else 1)
        assert extra["top1"] == pytest.approx(own["top1"].mean())
        for name in ("gmacs", "speedup", "verdict"):
            assert extra[name] == own[name].iloc[0]
        assert one["param"] == own["params"].iloc[0]
    environment = json.loads((results / "environment.json").read_text())
    assert exported["datetime"] == environment["measured"]
    assert exported["machine_info"]["processor"] == environment["device_name"]


def test_without_out_the_json_is_printed(run: Run, results: Path) -> None:
    code, out, err = run("export", str(results))
    assert (code, err) == (0, "")
    assert len(json.loads(out)["benchmarks"]) == 5
    assert run("export", str(results), "--out", "-")[1] == out


def test_results_without_times_are_a_user_error(run: Run, tmp_path: Path) -> None:
    run("compare", "--methods", "evit", "--keep", "0.5", "--only", "macs", "--out", "counted")
    code, out, err = run("export", "counted", "--out", "x.json")
    assert (code, out) == (2, "")
    assert "no times in counted: measure them with tokbench compare" in err
    code, _, err = run("export", "nowhere")
    assert code == 2
    assert "no results in nowhere" in err
    assert not (tmp_path / "x.json").exists()
    assert not (tmp_path / "nowhere").exists()


def test_an_unwritable_file_is_a_user_error(run: Run, results: Path) -> None:
    code, _, err = run("export", str(results), "--out", "missing/x.json")
    assert code == 2
    assert err.count("\n") == 1
    assert "cannot write missing/x.json" in err
