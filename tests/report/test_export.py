"""`tokbench export`, read by pytest-benchmark."""

import json
import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pytest_benchmark.cli import main as pytest_benchmark
from stored_results import REFERENCE, keep_records, read_records, write_plan

from tokbench.report.export import pytest_benchmark_json
from tokbench.results import load
from tokbench.results.directory import write_tables
from tokbench.results.plan import read_plan

Run = Callable[..., tuple[int, str, str]]

METHODS = ("none", "grid_pooling", "random_selection")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small part of real results: a stochastic method with two seeds, and one that is skipped."""
    directory = Path(shutil.copytree(REFERENCE, tmp_path_factory.mktemp("measured") / "results"))
    plan = read_plan(directory)
    rows = [row for row in plan.rows if row.id.method in METHODS and row.id.keep != 0.3 and row.id.seed != 2]
    skipped = replace(
        rows[1], id=replace(rows[1].id, method="dynamic_vit"), skipped="needs fine-tuned weights", keys={}
    )
    write_plan(directory, replace(plan, rows=(*rows, skipped)))
    kept = {key for row in rows for key in row.keys.values()}
    keep_records(directory, lambda record: record["kind"] == "noise" or record["key"].partition("/")[0] in kept)
    write_tables(load(directory))
    return directory


@pytest.fixture(scope="module")
def exported(results: Path) -> dict[str, Any]:
    return pytest_benchmark_json(load(results))


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`pytest-benchmark compare` in the current folder; gives what it prints."""

    def compared(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["pytest-benchmark", "compare", *arguments])
        capsys.readouterr()
        pytest_benchmark()
        return capsys.readouterr().out

    return compared


def samples(results: Path) -> list[list[float]]:
    """The time samples of the downsampled models, read directly from the file."""
    return [record["value"]["other_s"] for record in read_records(results) if record["kind"] == "latency"]


def test_pytest_benchmark_reads_and_groups_it(
    here: Path, exported: dict[str, Any], results: Path, compare: Callable[..., str]
) -> None:
    (here / "new.json").write_text(json.dumps(exported))
    command = ("new.json", "--columns=median,rounds")
    lines = compare(*command, "--csv=read.csv").splitlines()
    for keep, count in (("1", 1), ("0.7", 2), ("0.5", 2)):
        (line,) = [line for line in lines if line.rstrip(" -").endswith(f"keep {keep}': {count} tests")]
        assert "digits_deit cpu fp32 batch 32" in line
    # pytest-benchmark's table of the same file has medians in seconds.
    table = pd.read_csv(here / "read.csv")
    assert sorted(table["median"]) == pytest.approx(sorted(map(statistics.median, samples(results))))
    assert "'method=grid_pooling': 2 tests" in compare(*command, "--group-by=param:method")


def test_two_runs_are_compared_by_name(here: Path, exported: dict[str, Any], compare: Callable[..., str]) -> None:
    for name in ("old.json", "new.json"):
        (here / name).write_text(json.dumps(exported))
    assert compare("old.json", "new.json", "--group-by=fullname").count("': 2 tests") == 5


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
        params, extra = one["params"], one["extra_info"]
        own = table[(table["method"] == params["method"]) & (table["keep"] == params["keep"])]
        assert len(own) == (2 if params["method"] == "random_selection" else 1)
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


def test_the_json_is_written_to_a_file(run: Run, results: Path, exported: dict[str, Any], tmp_path: Path) -> None:
    code, out, err = run("export", str(results), "--format", "pytest-benchmark", "--out", "new.json")
    assert (code, out) == (0, "")
    assert "5 benchmarks" in err
    assert json.loads((tmp_path / "new.json").read_text()) == json.loads(json.dumps(exported))


def test_results_without_times_are_a_user_error(run: Run, results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "counted")
    keep_records(tmp_path / "counted", lambda record: record["kind"] == "macs")
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
