"""Runs that are stopped: what was measured is kept, and the same command continues."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

TOKBENCH = [sys.executable, "-m", "tokbench"]

Run = Callable[..., tuple[int, str, str]]


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tokbench.toml").write_text("[defaults]\naccuracy_batch = 10\n")  # five shards of up to 80 images
    command = [
        "compare", "--limit", "390", "--keep", "0.5", "--seeds", "0", "--methods", "grid_pooling,random_selection",
        "--only", "macs,accuracy", "--threads", "1", "--models", "digits_deit",
        "--baselines", "none", "--out",
    ]  # fmt: skip
    assert run(*command, "whole")[0] == 0
    records = tmp_path / "killed/records.jsonl"
    killed = [*TOKBENCH, *command, "killed"]
    with subprocess.Popen(killed, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and (not records.exists() or records.read_bytes().count(b'"accuracy"') < 4):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = records.read_bytes()
    finished = kept[: kept.rfind(b"\n") + 1]
    assert not (tmp_path / "killed/table.parquet").exists()
    assert run(*command, "killed")[0] == 0
    lines = records.read_bytes()
    assert lines.startswith(finished)
    keys = [(record["kind"], record["key"]) for record in map(json.loads, lines.splitlines())]
    assert len(keys) == len(set(keys))
    whole = [json.loads(line) for line in (tmp_path / "whole/records.jsonl").read_text().splitlines()]
    assert sorted(keys) == sorted((record["kind"], record["key"]) for record in whole)
    for name in ("table.csv", "correctness.parquet"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_ctrl_c_says_how_to_resume(tmp_path: Path) -> None:
    command = [*TOKBENCH, "compare", "--methods", "random_selection", "--out", "x"]
    records = tmp_path / "x/records.jsonl"
    # If the tests run in the background, they ignore SIGINT, and the child process would too.
    default_sigint = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stderr=pipe, text=True, preexec_fn=default_sigint) as process:
        while process.poll() is None and (not records.exists() or records.stat().st_size == 0):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1].startswith("tokbench: stopped; finished measurements are kept")
    assert "Traceback" not in err
