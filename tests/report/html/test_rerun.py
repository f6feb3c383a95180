"""The command that repeats a comparison plans the same cells."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from stored_results import REFERENCE, plan_with_methods

from tokbench.config import load_config
from tokbench.notation import split_list
from tokbench.registry import method_class
from tokbench.report.html.rerun import rerun_commands
from tokbench.results import MethodInfo, Plan, PlannedRow
from tokbench.results.plan import PLAN, plan_json, read_plan
from tokbench.run.method_info import infos
from tokbench.suite import Suite

Run = Callable[..., tuple[int, str, str]]


ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "results/reference/embedded"


@pytest.fixture
def cells(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[PlannedRow, ...]]:
    """The cells that a command would measure; the time that they take is not estimated."""
    monkeypatch.setattr("tokbench.run.estimate.estimate_seconds", lambda prepared: 0.0)

    def planned(command: str) -> tuple[PlannedRow, ...]:
        program, *arguments = shlex.split(command)
        assert program == "tokbench"
        code, out, err = run(*arguments, "--plan", "--json")
        assert code == 0, err
        content = {**plan_json(read_plan(REFERENCE)), "rows": json.loads(out)["cells"]}
        (tmp_path / PLAN).write_text(json.dumps(content))
        return read_plan(tmp_path).rows

    return planned


def test_the_command_plans_the_same_cells(cells: Callable[[str], tuple[PlannedRow, ...]]) -> None:
    plan = read_plan(COMMITTED)
    rerun = rerun_commands(plan, COMMITTED)
    assert rerun.compare == f"tokbench compare embedded --device cpu --out {COMMITTED}"
    # The keys depend on the versions that measured.
    again = cells(f"{rerun.compare} --baselines auto --models {','.join(plan.models)}")
    assert [replace(row, keys={}) for row in again] == [replace(row, keys={}) for row in plan.rows]


def test_the_command_sets_everything_that_differs(cells: Callable[[str], tuple[PlannedRow, ...]]) -> None:
    asked = {
        **{"methods": "tome,token_pooling(algorithm=kmeans,weighted=false),none(attention=eager)", "keep": "0.9,0.25"},
        **{"schedule": "every_block", "batch_size": "2,3", "seeds": "4", "limit": "7", "only": "macs,accuracy"},
        **{"device": "cpu", "site": "after_attention", "seconds": "0.5", "threads": "1", "workers": "1"},
    }
    flags = [word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value)]
    rows = cells(shlex.join(["tokbench", "compare", "embedded", *flags]))
    lists = {name: split_list(asked[name]) for name in ("methods", "keep", "batch_size", "seeds", "only")}
    suite = load_config(ROOT / "tokbench.toml").suite("embedded", {**asked, **lists})
    methods = infos(method_class(name) for name in ("tome", "token_pooling"))
    rerun = rerun_commands(Plan(suite, "cpu", None, rows, methods), Path("second"))
    assert rerun.suite == ""
    # A cell's keys cover everything that its measurements depend on: the limit, the data, the time limit.
    assert cells(rerun.compare) == rows
    words = shlex.split(rerun.compare)
    assert {flag for flag in words if flag.startswith("--")} == {f for f in flags if f.startswith("--")} | {"--out"}


def test_settings_without_an_option_go_into_a_file(tmp_path: Path) -> None:
    plan = plan_with_methods(REFERENCE)
    changes = {"accuracy_batch": 7, "precision": 0.2, "data": 'a "folder" of\nmine', "site": "before_block"}
    plan = replace(plan, suite=plan.suite.model_copy(update=changes))
    rerun = rerun_commands(plan, tmp_path / "out")
    assert rerun.compare == f"tokbench compare again --config again.toml --out {tmp_path}/out"
    (tmp_path / "again.toml").write_text(rerun.suite)
    read = load_config(tmp_path / "again.toml").suite("again", {})
    settings = plan.suite.model_dump()
    wanted = Suite(**{**settings, "device": "cpu", "data": f"{tmp_path}/{settings['data']}", "description": ""})
    assert read == wanted


def test_methods_of_the_users_own_are_listed() -> None:
    plan = plan_with_methods(REFERENCE)
    assert rerun_commands(plan, REFERENCE).own_methods == ()
    mine = replace(plan, methods={**plan.methods, "strange": MethodInfo(own=True)})
    assert rerun_commands(mine, REFERENCE).own_methods == ("strange",)


def test_all_parameters_are_named_if_the_defaults_are_not_known() -> None:
    plan = plan_with_methods(REFERENCE)
    compare = rerun_commands(replace(plan, methods={}), REFERENCE).compare
    methods = split_list(shlex.split(compare)[shlex.split(compare).index("--methods") + 1])
    assert "token_pooling(algorithm=kmedoids,init=scores,iterations=5,output=mean,weighted=true)" in methods
