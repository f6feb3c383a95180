"""Running the parts of the program for a GPU's owner: real processes that do little."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu import run
from gpu.part import limit_of
from gpu.run import stop_on_signals
from small_parts import WRITES, part, ran, states

PROGRAMS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts may be started with hardly any time left."""
    monkeypatch.setattr(run, "SHORTEST", 0.0)


def test_parts_run_in_order_and_keep_their_files(tmp_path: Path) -> None:
    appends = f"open({str(tmp_path / 'order')!r}, 'a').write(folder.name); " + WRITES
    results = ran([part("b", appends), part("a", appends)], tmp_path)
    assert states(results) == [("b", "done"), ("a", "done")]
    assert (tmp_path / "order").read_text() == "ba"
    for name in "ab":
        assert (tmp_path / name / "answer.txt").read_text() == "42"
        assert (tmp_path / name / "output.txt").read_text() == "the table\n"
        assert json.loads((tmp_path / name / "part.json").read_text())["state"] == "done"


def test_a_part_that_fails_is_named_with_its_last_words_and_the_others_go_on(tmp_path: Path) -> None:
    broken = part("broken", "print('a warning', file=sys.stderr); raise ValueError('no such thing')")
    silent = part("silent", "sys.exit(3)")
    results = ran([broken, silent, part("next", WRITES)], tmp_path)
    assert states(results) == [("broken", "failed"), ("silent", "failed"), ("next", "done")]
    assert results[0].reason == "ValueError: no such thing"
    assert results[1].reason.startswith("exit code 3")


@pytest.mark.usefixtures("impatient")
def test_a_part_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess; (folder / 'half.txt').write_text('half'); "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)']); "
        "(folder / 'child').write_text(str(child.pid)); time.sleep(3600)"
    )
    slow = part("slow", code, seconds=2)
    results = ran([slow, part("next", WRITES)], tmp_path, left=20)
    assert states(results) == [("slow", "out of time"), ("next", "done")]
    assert "longer than" in results[0].reason
    assert (tmp_path / "slow/half.txt").read_text() == "half"
    assert not _runs(int((tmp_path / "slow/child").read_text()))


@pytest.mark.usefixtures("impatient")
def test_a_part_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GRACE", 0.2)
    deaf = part("deaf", "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(3600)", seconds=0.5)
    assert states(ran([deaf], tmp_path, left=1)) == [("deaf", "out of time")]


def test_without_time_nothing_is_started(tmp_path: Path) -> None:
    results = ran([part("late", WRITES)], tmp_path, left=0)
    assert states(results) == [("late", "not started")]
    assert "run again" in results[0].reason
    assert not (tmp_path / "late").exists()


def test_what_a_part_lacks_is_said(tmp_path: Path) -> None:
    parts = [
        part("one", WRITES, gpus=1),
        part("two", WRITES, gpus=2),
        part("library", WRITES, modules=("json", "no_such_library")),
    ]
    results = ran(parts, tmp_path, gpus=1)
    assert states(results) == [("one", "done"), ("two", "skipped"), ("library", "skipped")]
    assert [one.reason for one in results[1:]] == [
        "needs 2 CUDA devices",
        "needs no_such_library, which is not installed",
    ]
    assert part("one", WRITES, gpus=1).lacks(0) == "needs a CUDA device"


def test_a_second_run_does_only_what_is_not_done(tmp_path: Path) -> None:
    counts = "file = folder / 'count'; file.write_text(file.read_text() + '1' if file.exists() else '1'); "
    fails_once = counts + "sys.exit(len(file.read_text()) == 1)"
    parts = [part("steady", counts), part("flaky", fails_once)]
    assert states(ran(parts, tmp_path)) == [("steady", "done"), ("flaky", "failed")]
    again = ran(parts, tmp_path)
    assert states(again) == [("steady", "done"), ("flaky", "done")]
    assert (tmp_path / "steady/count").read_text() == "1"
    changed = ran([part("steady", counts + "pass")], tmp_path)  # another command
    assert states(changed) == [("steady", "done")]
    assert (tmp_path / "steady/count").read_text() == "11"
    elsewhere = ran(parts[:1], tmp_path, machine="another")
    assert states(elsewhere) == [("steady", "done")]
    assert (tmp_path / "steady/count").read_text() == "111"


def test_ctrl_c_ends_the_part_that_runs_and_starts_no_other(tmp_path: Path) -> None:
    script = f"""
import sys, time
sys.path.append({str(PROGRAMS)!r})
from pathlib import Path
from gpu.part import Part
from gpu.run import run_parts, stop_on_signals
out = Path({str(tmp_path)!r})
parts = [
    Part("first", "", ("-c", "print(1)"), 1),
    Part("second", "", ("-c", "import time; open('FOLDER/started', 'w').close(); time.sleep(3600)"), 3600),
    Part("third", "", ("-c", "print(3)"), 1),
]
with stop_on_signals() as stop:
    for result in run_parts(parts, out, time.monotonic() + 9999, 0, "", stop, lambda line: None):
        print(result.name, result.state, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (tmp_path / "second/started").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert out.splitlines() == ["first done", "second stopped", "third not started"]
    assert json.loads((tmp_path / "first/part.json").read_text())["state"] == "done"
    assert json.loads((tmp_path / "second/part.json").read_text())["state"] == "stopped"


def test_signals_are_handled_as_before_once_it_is_over() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(10)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_part_may_take_twice_its_estimate_or_its_share_and_never_more_than_is_left() -> None:
    first, second = part("first", "", 10), part("second", "", 30)
    assert limit_of(first, [second], 1000) == 250  # its share
    assert limit_of(first, [second], 50) == 20  # twice its estimate
    assert limit_of(first, [second], 5) == 5
    assert limit_of(first, [], 100) == 100


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()
