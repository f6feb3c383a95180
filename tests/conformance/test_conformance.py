"""The conformance suite: each planted fault is found by the expected check, and correct methods pass.

The first line of each file in `planted/` names the check that must find its fault.
"""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tokbench.conformance import CHECKS, Result, failures, verify
from tokbench.conformance.checks import about, examine, name_of
from tokbench.conformance.subject import find
from tokbench.errors import UserError

PLANTED = sorted((Path(__file__).parent / "planted").glob("*.py"))
SOUND = ("token_pooling", "grid_pooling", "random_selection", "score_pruning(score=cls)")
NEVER_FAILS = {"compiles"}  # it only reports; if eager and compiled results differ, the bug is in torch

METHOD = '''"""A sound method."""

from tokbench import Context, Downsampler, Tokens, register


@register("{name}")
class Sound(Downsampler):
    """Keep the tokens of the largest norm."""

    needs = frozenset({{{needs}}})

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.select(tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values)
'''


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound.py"
    path.write_text(METHOD.format(name="sound", needs=""))
    return path


Run = Callable[..., tuple[int, str, str]]


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"}
    )


def named_check(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split(":")[0]


def broken(results: list[Result]) -> dict[str, str]:
    return {result.check: result.message for result in results if result.outcome == "failed"}


# Checks


@pytest.mark.parametrize("path", PLANTED, ids=lambda path: path.stem.removeprefix("planted_"))
def test_a_planted_fault_is_found_by_the_expected_check(path: Path):
    found = broken(verify(path))
    assert named_check(path) in found
    assert len(found) <= 3  # unrelated checks pass or are skipped
    for message in found.values():
        assert re.match(rf"\S*{path.name}:\d+: \S", message)
        assert "\n" not in message


def test_every_check_has_a_planted_fault():
    assert len(PLANTED) >= 20
    assert {named_check(path) for path in PLANTED} == {name_of(check) for check in CHECKS} - NEVER_FAILS


@pytest.mark.parametrize("name", SOUND)
def test_sound_methods_pass(name: str):
    results = verify(name)
    assert broken(results) == {}
    assert [result.check for result in results] == [name_of(check) for check in CHECKS]
    assert {result.method for result in results} == {name}


def test_a_failure_names_the_line_that_raised():
    path = Path(__file__).parent / "planted" / "planted_two_tokens.py"
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "* below" in text)
    message = broken(verify(path))["smallest"]
    assert f"planted_two_tokens.py:{line}: RuntimeError" in message
    assert "N=2, K=1" in message


def test_checking_stops_after_a_failed_gate():
    path = Path(__file__).parent / "planted" / "planted_no_setup.py"
    assert [result.check for result in verify(path)] == ["imports", "declares", "runs"]


def test_a_declared_field_that_is_never_read_is_reported(tmp_path: Path):
    path = tmp_path / "idle.py"
    path.write_text(METHOD.format(name="idle", needs='"keys", "received"'))
    results = verify(path)
    assert broken(results) == {}
    (idle,) = (result for result in results if result.check == "undeclared")
    assert idle.outcome == "reported"
    assert "keys, received" in idle.message


def test_all_methods_of_a_file_are_checked(tmp_path: Path):
    path = tmp_path / "two.py"
    more = METHOD.format(name="two_b", needs="").replace("Sound", "Other")
    path.write_text(METHOD.format(name="two_a", needs="") + more[more.index("@register") :])
    assert [subject.label for subject in find([path])] == ["two_a", "two_b"]


def test_failures_returns_lines_for_an_assert(sound: Path):
    assert failures(sound) == []
    (line,) = failures(Path(__file__).parent / "planted" / "planted_detached.py")
    assert line.startswith("gradients: ")


def test_the_suite_restores_global_random_states(sound: Path):
    import random

    import numpy as np
    import torch

    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    list(examine(find([sound])[0]))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1], before[2]) == (np.random.get_state()[1].tolist(), random.getstate())


def test_every_check_has_a_description():
    lines = [about(check) for check in CHECKS]
    assert all(line.endswith(".") for line in lines)
    assert len(set(lines)) == len(CHECKS)


@pytest.mark.parametrize(
    ("target", "part"), [("tomee", "tome"), ("nowhere.py", "nowhere.py"), ("token_pooling(k=3)", "no parameter 'k'")]
)
def test_an_unknown_target_is_a_user_error(target: str, part: str):
    with pytest.raises(UserError, match=re.escape(part)):
        verify(target)


# The command


def test_a_conforming_method_prints_one_line(run: Run, sound: Path):
    code, out, err = run("verify", "sound.py")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    assert re.fullmatch(r"✓ sound  \d+ checks passed", line)


def test_failures_are_listed_below_the_method_one_per_line(run: Run):
    planted = Path(__file__).parent / "planted"
    code, out, err = run("verify", str(planted / "planted_count.py"), str(planted / "planted_import_error.py"))
    assert (code, err) == (1, "")
    first, *rest = out.splitlines()
    assert re.fullmatch(r"✗ planted_count  3 of \d+ checks failed", first)
    assert rest[0].startswith("  ✗ counts  ")
    assert rest[0].endswith("float32)")
    assert rest[3].startswith("✗ ")
    assert "select_largest" in rest[4]


def test_json_is_an_array_of_results(run: Run, sound: Path):
    code, out, _ = run("verify", "sound.py", "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["check"] for row in rows] == [name_of(check) for check in CHECKS]
    assert all(set(row) == {"method", "check", "outcome", "message"} for row in rows)


@pytest.mark.parametrize(
    "arguments", [("nothing",), ("nowhere.py",), (), ("tome", "--all"), ("sound.py", "--config", "none.toml")]
)
def test_misuse_is_reported_in_one_line(run: Run, sound: Path, arguments: tuple[str, ...]):
    code, out, err = run("verify", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("tokbench: ")
    assert len(err.splitlines()) == 1


# The pytest plugin


def test_pytest_runs_the_selected_checks_of_each_file_in_an_empty_folder(tmp_path: Path, sound: Path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (tmp_path / "gone.py").write_text("import nothing_of_that_name\n")
    planted = Path(__file__).parent / "planted" / "planted_prefix.py"
    files = [f"--tokbench-method={path}" for path in ("../sound.py", planted, "../gone.py")]
    ran = pytest_in(folder, *files, "-v", "-k", "counts or stateless or planted_prefix or gone")
    assert ran.returncode == 1
    selected = 2 + len(CHECKS) + 1  # a file that cannot be imported is one failure
    assert re.search(rf"collected {2 * len(CHECKS) + 1} items / \d+ deselected / {selected} selected", ran.stdout)
    for check in ("counts", "stateless"):
        assert re.search(rf"sound.py::{check}\[sound\] PASSED", ran.stdout)
    assert re.search(r"planted_prefix.py::prefix\[planted_prefix\] FAILED", ran.stdout)
    assert re.search(r"planted_prefix.py:12: expected the prefix tokens unchanged, got differences", ran.stdout)
    assert re.search(r"gone.py:1: ModuleNotFoundError", ran.stdout)
    assert "2 failed" in ran.stdout
    assert "Traceback" not in ran.stdout


def test_pytest_rejects_a_missing_file(tmp_path: Path):
    ran = pytest_in(tmp_path, "--tokbench-method=nowhere.py")
    assert ran.returncode == pytest.ExitCode.USAGE_ERROR
    assert "nowhere.py" in ran.stderr


def test_pytest_does_not_import_torch_without_the_option(tmp_path: Path):
    code = "import sys, pytest; pytest.main(['-p', 'no:cacheprovider']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True).returncode == 0
