"""Directories that were measured separately are joined to what one run would have measured."""

import json
import shutil
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from measured_parts import edit, make

from tokbench.results import load
from tokbench.results.merge import _join_suites, merge
from tokbench.results.store import Records
from tokbench.suite import Suite

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two directories of one machine, each with a session of its own."""
    root = tmp_path_factory.mktemp("timed")
    quick = {"only": ["macs", "latency"], "seconds": 0.01, "keep": [0.5], "batch_size": [1], "seeds": [0]}
    return make(root / "grid", methods=["grid_pooling"], **quick), make(
        root / "rank", methods=["random_selection"], **quick
    )


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def assert_same(directory: Path, other: Path) -> None:
    for name in ("table", "correctness"):
        frames = (pd.read_parquet(folder / f"{name}.parquet") for folder in (directory, other))
        pd.testing.assert_frame_equal(*frames)
    assert Records(directory).all() == Records(other).all()


@pytest.mark.parametrize(
    "names",
    [
        ("images-1", "images-2"),
        ("images-2", "images-1"),
        ("grid", "random"),
        ("keep-7", "keep-5"),
        ("keep-5", "keep-7"),
        ("macs", "accuracy"),
        ("accuracy", "macs"),
        ("seed-0", "seed-1"),
        ("whole", "grid", "images-2"),
        ("whole",),
    ],
)
def test_what_is_joined_is_what_one_run_measures(made: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    table = merge([made / name for name in names], tmp_path / "joined").table
    assert_same(tmp_path / "joined", made / "whole")
    pd.testing.assert_frame_equal(table, load(made / "whole").table)
    joined, whole = (json.loads((folder / "plan.json").read_text()) for folder in (tmp_path / "joined", made / "whole"))
    assert joined["rows"] == whole["rows"]
    order = {name: sorted(joined["suite"][name]) for name in ("methods", "keep", "seeds", "only")}
    assert order == {name: sorted(whole["suite"][name]) for name in order}


def test_a_part_shows_what_is_not_measured_yet(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tokbench.toml").write_text("[defaults]\naccuracy_batch = 10\n")
    quick = ["compare", "--methods", "grid_pooling", "--limit", "100", "--only", "macs,accuracy", "--keep", "0.5"]
    for number in (1, 2):
        code, _, err = run(*quick, "--part", f"{number}/2", "--out", f"part-{number}")
        assert (code, err) == (0, "")
        table = pd.read_parquet(tmp_path / f"part-{number}/table.parquet")
        assert set(table["reason"]) == {"not measured yet"}
        assert table["top1"].isna().all()
        assert table["gmacs"].notna().all() == (number == 1)
    code, out, err = run("merge", "part-1", "part-2", "--out", "joined")
    assert (code, err) == (0, "")
    assert "grid_pooling" in out
    table = pd.read_parquet(tmp_path / "joined/table.parquet")
    assert set(table["status"]) == {"ok"}
    assert set(table["images"]) == {100}
    # A run that continues it has nothing left to measure.
    before = (tmp_path / "joined/records.jsonl").read_bytes()
    assert run(*quick, "--out", "joined")[0] == 0
    assert (tmp_path / "joined/records.jsonl").read_bytes() == before
    code, out, _ = run("merge", "part-1", "--out", "half", "--json")
    assert (code, {row["reason"] for row in json.loads(out)}) == (0, {"not measured yet"})


def test_directories_of_different_budgets_are_joined(tmp_path: Path) -> None:
    only = {"only": ["macs"], "methods": ["score_pruning", "grid_pooling"]}
    for name, schedule in (("high", "budget(0.8)"), ("low", "budget(0.6)"), ("both", "budget(0.8,0.6)")):
        make(tmp_path / name, schedule=schedule, **only)
    merge([tmp_path / "high", tmp_path / "low"], tmp_path / "joined")
    joined, whole = (load(tmp_path / name) for name in ("joined", "both"))
    pd.testing.assert_frame_equal(joined.table, whole.table)
    assert joined.plan.suite.schedule == whole.plan.suite.schedule == ("budget(0.8)", "budget(0.6)")


def test_joining_again_changes_nothing(made: Path, tmp_path: Path) -> None:
    sources = [made / "grid", made / "random"]
    merge(sources, tmp_path / "joined")
    before = contents(tmp_path / "joined")
    for again in (sources, sources[::-1], [tmp_path / "joined"], [*sources, tmp_path / "joined"]):
        merge(again, tmp_path / "joined")
        assert contents(tmp_path / "joined") == before


def test_directories_can_be_added_one_by_one(made: Path, tmp_path: Path) -> None:
    for name in ("grid", "random"):
        merge([made / name], tmp_path / "joined")
    assert_same(tmp_path / "joined", made / "whole")


def test_the_order_of_directories_changes_only_the_order_of_rows(made: Path, tmp_path: Path) -> None:
    names = ("grid", "keep-7", "random")
    tables = {}
    for number, order in enumerate(permutations(names)):
        tables[order] = merge([made / name for name in order], tmp_path / str(number)).table
    settings = ["method", "keep", "seed"]
    first, *others = (table.sort_values(settings, ignore_index=True) for table in tables.values())
    for other in others:
        pd.testing.assert_frame_equal(other, first)
    assert list(tables[names]["method"].unique()) == ["none", "grid_pooling", "random_selection"]
    assert list(tables["random", "keep-7", "grid"]["method"].unique()) == ["none", "random_selection", "grid_pooling"]
    for table in tables.values():
        assert all(rows["keep"].is_monotonic_decreasing for _, rows in table.groupby("method"))


def test_sessions_are_kept(timed: tuple[Path, Path], tmp_path: Path) -> None:
    table = merge(timed, tmp_path / "joined").table.set_index(["method", "seed"])
    sessions = {place for place in Records(tmp_path / "joined").all() if place[0] == "noise"}
    assert len(sessions) == 2
    for directory, method in zip(timed, ("grid_pooling", "random_selection"), strict=True):
        own = load(directory).table.set_index(["method", "seed"])
        pd.testing.assert_frame_equal(table.loc[[method]], own.loc[[method]])
        assert table.loc[method, "noise_floor"].notna().all()


def test_of_two_sessions_the_same_is_kept_in_any_order(timed: tuple[Path, Path], tmp_path: Path) -> None:
    plain = [load(directory).table.loc[0, "latency_ms"] for directory in timed]
    assert plain[0] != plain[1]
    tables = [merge(order, tmp_path / str(number)).table for number, order in enumerate((timed, timed[::-1]))]
    taken = {table.loc[0, "latency_ms"] for table in tables}
    assert len(taken) == 1
    assert taken <= set(plain)


def test_every_machine_is_listed(made: Path, copied: Callable[..., list[Path]], run: Run, tmp_path: Path) -> None:
    one, two = copied("images-1", "images-2")
    edit(
        two / "environment.json", lambda environment: environment.update(measured="2100-01-01T00:00:00+00:00", cpus=99)
    )
    edit(two / "environment.json", lambda environment: environment["versions"].update(pillow="0.1"))
    for order in ([one, two], [two, one]):
        shutil.rmtree(tmp_path / "joined", ignore_errors=True)
        merge(order, tmp_path / "joined")
        merge([one, tmp_path / "joined"], tmp_path / "again")
        listed = [json.loads((tmp_path / name / "environment.json").read_text()) for name in ("joined", "again")]
        assert listed[0] == listed[1]
    own = [json.loads((directory / "environment.json").read_text()) for directory in (one, two)]
    assert listed[0]["machines"] == own
    assert listed[0]["measured"] == own[1]["measured"]
    assert listed[0]["cpus"] == " and ".join(sorted([str(own[0]["cpus"]), "99"]))
    assert listed[0]["versions"]["pillow"] == f"0.1 and {own[0]['versions']['pillow']}"
    assert listed[0]["versions"]["torch"] == own[0]["versions"]["torch"]
    # The other commands read it like any.
    assert run("report", "joined")[0] == 0
    assert "0.1 and" in (tmp_path / "joined/report.html").read_text()
    code, out, _ = run("check", "joined", "--baseline", str(made / "whole"))
    assert code == 0, out


def test_spectra_are_joined_too(tmp_path: Path) -> None:
    few = {"methods": ["grid_pooling"], "keep": [0.5], "limit": 80, "analyse": True}
    make(tmp_path / "one", "1/1", **few)
    merge([tmp_path / "one"], tmp_path / "joined")
    for name in ("spectra.csv", "reconstruction.csv"):
        assert (tmp_path / "joined" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert not load(tmp_path / "joined").spectra.empty


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        ([("a=x",), ("b=y",)], ("a=x", "b=y")),
        ([("a=x",), None], ("a=x",)),
        ([("a=x", "b=y"), ("b=y",)], ("a=x", "b=y")),
        ([("x",), ("x",)], ("x",)),
        ([("x",), ("y",)], None),
        ([("a=x",), ("a=y",)], None),
    ],
)
def test_files_that_name_their_model_are_joined(given: list[Any], joined: tuple[str, ...] | None) -> None:
    suite = Suite(models=("a",), methods=("none",))
    assert _join_suites([suite.model_copy(update={"weights": one}) for one in given]).weights == joined
