"""Searched schedules in a comparison: what is found and written, stopped searches, and what users get wrong."""

import json
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
from PIL import Image

import tokbench
from tokbench.measure.schedule_search import Trial
from tokbench.run.trial_log import TrialFile

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--limit=100", "--calibration-limit=60", "--only=macs,agreement", "--threads=1", "--out=out")
COMMAND = ("compare", *QUICK, "--methods=tome")


def compared(run: Run, *options: str) -> pd.DataFrame:
    code, printed, said = run("compare", *QUICK, *options)
    assert code == 0, (printed, said)
    return tokbench.load("out").table


def found(pattern: str = "*") -> dict:
    (file,) = Path("out/schedules").glob(f"{pattern}.toml")
    return tomllib.loads(file.read_text())


def trials(pattern: str = "*") -> list[dict]:
    (file,) = Path("out/schedules").glob(f"{pattern}.jsonl")
    return [json.loads(line)["trial"] for line in file.read_text().splitlines()]


@pytest.mark.parametrize("method", ["tome", "evit", "grid_pooling", "ats", "dpc_knn", "dtome", "random_selection"])
def test_the_schedule_found_meets_the_budget_and_can_be_copied(run: Run, method: str) -> None:
    # ATS removes tokens by itself, so that of the known shapes none costs as much as 0.7 on the digits.
    fraction = 0.5 if method == "ats" else 0.7
    schedule = f"searched({fraction},trials=10)"
    table = compared(run, f"--methods={method}", f"--schedule={schedule}", "--seeds=0")
    plain, row = table.iloc[0], table.iloc[1]
    assert (row["status"], row["schedule"]) == ("ok", schedule)
    assert row["gmacs"] / plain["gmacs"] == pytest.approx(fraction, rel=0.01)
    assert "searched on 60 images (training digits), 10 trials" in row["remarks"]
    toml = found()
    assert toml["gmacs"] == pytest.approx(row["gmacs"], rel=1e-4)
    assert (toml["method"], toml["model"], toml["fraction"], toml["trials"]) == (method, "digits_deit", fraction, 10)
    assert toml["images"]["count"] == 60
    assert toml["images"]["measured_as_well"] == 0
    if "stages" in toml:
        assert toml["agreement"] >= toml["stages"]["agreement"]
        assert toml["stages"]["gmacs"] / plain["gmacs"] == pytest.approx(fraction, rel=0.01)
    copied = compared(run, f"--methods={method}", f"--schedule={toml['schedule']}", "--seeds=0").iloc[1]
    if method != "dtome":  # whose constants depend on the images, too, and are the same only up to rounding
        for column in ("tokens_per_block", "gmacs", "agreement", "kl"):
            assert copied[column] == row[column], column


def test_a_search_killed_twice_ends_like_an_undisturbed_one(run: Run, tmp_path: Path) -> None:
    command = (*COMMAND, "--schedule=searched(0.6,trials=24)", "--models=digits_deit", "--baselines=none")
    assert run(*command)[0] == 0
    Path("out").rename("undisturbed")
    for enough in (5, 14):
        with subprocess.Popen(
            [sys.executable, "-m", "tokbench", *command], cwd=tmp_path, stdout=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and _lines() < enough:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert enough <= _lines() < 24
    assert run(*command)[0] == 0
    for file in Path("undisturbed/schedules").glob("*.*l"):
        again = (Path("out/schedules") / file.name).read_text()
        assert _without_date(again) == _without_date(file.read_text())


def test_a_killed_worker_does_not_change_the_search(run: Run, tmp_path: Path) -> None:
    command = (*COMMAND, "--schedule=searched(0.6,trials=24)", "--models=digits_deit", "--baselines=none")
    assert run(*command)[0] == 0
    Path("out").rename("undisturbed")
    with subprocess.Popen(
        [sys.executable, "-m", "tokbench", *command], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and _lines() < 5:
            time.sleep(0.002)
        (worker,) = psutil.Process(process.pid).children()
        worker.kill()
    if process.returncode != 0:  # killed between two trials, which ends the command
        assert run(*command)[0] == 0
    for file in Path("undisturbed/schedules").glob("*.*l"):
        again = (Path("out/schedules") / file.name).read_text()
        assert _without_date(again) == _without_date(file.read_text())


def _lines() -> int:
    return sum(file.read_bytes().count(b"\n") for file in Path("out/schedules").glob("*.jsonl"))


def _without_date(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("date = ")]


def test_more_trials_continue_and_nothing_is_searched_twice(run: Run) -> None:
    compared(run, "--methods=tome", "--schedule=searched(0.7,trials=6)")
    first, before = trials(), found()
    compared(run, "--methods=tome", "--schedule=searched(0.7,trials=6)")
    assert found() == before  # the date, too
    compared(run, "--methods=tome", "--schedule=searched(0.7,trials=12)")
    assert trials()[:6] == first
    assert len(trials()) == 12
    assert found("*-12")["trials"] == 12
    assert found("*-6") == before


def test_another_seed_or_fraction_is_another_search(run: Run) -> None:
    compared(run, "--methods=tome", "--schedule=searched(0.7,0.6,trials=2),searched(0.7,trials=2,seed=1)")
    assert len(list(Path("out/schedules").glob("*.jsonl"))) == 3


def test_a_plan_searches_nothing(run: Run) -> None:
    code, printed, _ = run(*COMMAND, "--schedule=searched(0.7)", "--plan", "--json")
    assert code == 0
    cell = json.loads(printed)["cells"][1]
    assert (cell["schedule"], cell["keep"], cell["skipped"]) == ("searched(0.7)", None, "")
    assert not Path("out").exists()


# The trials in a file


def test_a_torn_line_and_what_follows_a_damaged_one_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    several = [Trial((0.1 * n, -0.3), f"explicit(counts={n})", 0.1 + 0.2, 1e-17, n, 1 / 3) for n in range(1, 5)]
    log = TrialFile(path, "key")
    for trial in several:
        log.add(trial)
    whole = path.read_bytes()
    assert TrialFile(path, "key").trials == several
    path.write_bytes(whole[:-20])
    assert TrialFile(path, "key").trials == several[:3]
    assert whole.startswith(path.read_bytes())
    lines = whole.splitlines(keepends=True)
    path.write_bytes(lines[0] + b"damaged\n" + lines[2] + lines[3])
    assert TrialFile(path, "key").trials == several[:1]
    path.write_bytes(lines[0] + lines[2])
    assert TrialFile(path, "key").trials == several[:1]
    path.write_bytes(whole)
    assert TrialFile(path, "another").trials == []


# Methods that fail

PLUGIN = '''
import os
from tokbench import Downsampler, register

@register("fragile")
class Fragile(Downsampler):
    """Keeps the first tokens."""

    def forward(self, tokens, keep, context):
        {trouble}
        index = context.noise.argsort(dim=1, stable=True)[:, :keep]
        return tokens.select(index)
'''


def test_a_method_that_fails_with_some_schedules_is_searched_among_the_others(run: Run, tmp_path: Path) -> None:
    trouble = "if context.depth == 1: raise RuntimeError('not here')"
    (tmp_path / "fragile.py").write_text(PLUGIN.format(trouble=trouble))
    table = compared(run, "--plugins=fragile.py", "--methods=fragile", "--schedule=searched(0.7,trials=8)")
    assert table.iloc[1]["status"] == "ok"
    assert any("not here" in trial["failed"] for trial in trials())
    assert found()["trials_failed"] == sum(bool(trial["failed"]) for trial in trials())


def test_a_method_that_always_fails_costs_its_row(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text(PLUGIN.format(trouble="raise RuntimeError('never')"))
    methods = ("--plugins=fragile.py", "--methods=fragile,evit")
    code, printed, _ = run("compare", *QUICK, *methods, "--schedule=searched(0.7,trials=2)", "--json")
    assert code == 1
    _, fragile, evit = json.loads(printed)
    assert fragile["status"] == "failed"
    assert "never" in fragile["reason"]
    assert evit["status"] == "ok"


def test_a_trial_that_ends_the_process_twice_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text(PLUGIN.format(trouble="context.depth == 1 and os._exit(7)"))
    options = ("--plugins=fragile.py", "--methods=fragile", "--schedule=searched(0.7,trials=4)", "--models=digits_deit")
    command = [sys.executable, "-m", "tokbench", "compare", *QUICK, "--baselines=none", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("out/schedules/*.jsonl")
    failed = [json.loads(line)["trial"]["failed"] for line in file.read_text().splitlines()]
    assert sum("ended the process with exit code 7" in reason for reason in failed) == 1


# What users get wrong


def test_without_images_to_search_on_the_way_out_is_named(run: Run) -> None:
    model = ("--models=deit_tiny_patch16_224", "--weights=random")
    code, _, said = run("compare", "latency", *model, "--only=macs", "--methods=tome", "--schedule=searched(0.7)")
    assert code == 2
    assert "--calibration" in said
    assert len(said.strip().splitlines()) == 1


def test_without_optuna_the_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)  # as if it were not installed
    code, _, said = run(*COMMAND, "--schedule=searched(0.7)")
    assert code == 2
    assert "pip install 'tokbench[search]'" in said


@pytest.mark.parametrize("command", [("show", "photo.png", "--schedule=searched(0.7)"), ("check", "--against", "HEAD")])
def test_other_commands_search_nothing(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")
    settings = 'schedule = ["searched(0.7)"]\n'
    (tmp_path / "tokbench.toml").write_text(f"[defaults]\n{settings}[suites.embedded]\n{settings}")
    code, _, said = run(*command, "--methods=tome")
    assert code == 2
    assert "explicit(counts=...)" in said
    assert len(said.strip().splitlines()) == 1


def test_a_model_is_not_reduced_before_the_search() -> None:
    vit = tokbench.load_model("digits_deit").vit
    with pytest.raises(tokbench.errors.UserError, match=r"explicit\(counts=\.\.\.\)"):
        tokbench.reduce(vit, "tome", schedule="searched(0.7)")
