"""A measured comparison, copies of it to change, and the check of one copy against the other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from result_changes import IMAGES, Json, edit_json, times

from tokbench.config import load_config
from tokbench.registry import discover
from tokbench.results import Results
from tokbench.results.directory import write_tables
from tokbench.results.plan import PLAN
from tokbench.results.store import Store
from tokbench.run.cells import cells_of
from tokbench.run.measure import measure
from tokbench.run.observer import Silent
from tokbench.run.plan import write_plan
from tokbench.run.prepare import prepare

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real comparison with random times, so that no verdict depends on the load of this machine."""
    directory = tmp_path_factory.mktemp("measured") / "results"
    settings = load_config()
    chosen = {"methods": ["grid_pooling", "random_selection"], "keep": [0.5], "seeds": [0, 1]}
    chosen |= {"models": ["digits_deit"], "baselines": ["none"]}
    suite = settings.suite("embedded", {**chosen, "limit": IMAGES, "only": ["macs", "accuracy"], "device": "cpu"})
    prepared = prepare(cells_of(suite, settings, list(discover()[0])), suite)
    store = Store(directory)
    write_plan(prepared, directory)
    measure(prepared, store, Silent())

    def add_latency(plan: Json) -> None:
        plan["suite"]["only"].append("latency")
        for row in plan["rows"]:
            row["keys"]["latency"] = f"time of {row['method']}"

    edit_json(directory / PLAN, add_latency)
    for number, method in enumerate(("none", "grid_pooling", "random_selection")):
        store.add("latency", f"time of {method}", times(number, 1.0))
    store.add("noise", "session", {"blocks": [times(10 + block, 1.0) for block in range(5)]})
    write_tables(Results(directory, store))
    return directory


@pytest.fixture
def old(measured: Path, tmp_path: Path) -> Path:
    """The baseline, in the folder where `run` works."""
    return Path(shutil.copytree(measured, tmp_path / "old"))


@pytest.fixture
def new(measured: Path, tmp_path: Path) -> Path:
    """The results to check, equal to the baseline until a test changes them."""
    return Path(shutil.copytree(measured, tmp_path / "new"))


@pytest.fixture
def check(run: Run, old: Path, new: Path) -> Callable[..., tuple[int, Json]]:
    """Check `new` against `old`; gives the exit code and what `--json` prints."""

    def checked(*flags: str) -> tuple[int, Json]:
        code, out, err = run("check", "new", "--baseline", "old", "--json", *flags)
        assert err == ""
        report = json.loads(out)
        assert report["exit_code"] == code
        return code, report

    return checked
