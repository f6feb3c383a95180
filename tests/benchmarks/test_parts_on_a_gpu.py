"""The program for a GPU's owner: its parts, with real processes that do little."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from gpu import run
from gpu.part import FOLDER, Part, Result, limit_of
from gpu.plan import parts_of
from gpu.report import comparison_table, write_report
from gpu.run import run_parts, stop_on_signals

import tokbench

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "benchmarks/on_gpu.py"
MACHINE = "a machine"
LONG = 3600.0


def part(name: str, code: str, seconds: float = 10, **needs: object) -> Part:
    """A part that runs Python code, in which `folder` is its folder."""
    given = f"from pathlib import Path; folder = Path({FOLDER!r}); import sys, time; {code}"
    return Part(name, f"about {name}", ("-c", given), seconds, **needs)  # type: ignore[arg-type]


def ran(parts: list[Part], out: Path, left: float = LONG, stop: Event | None = None, gpus: int = 0) -> list[Result]:
    end = time.monotonic() + run.RESERVE + left
    return list(run_parts(parts, out, end, gpus, MACHINE, stop or Event(), lambda line: None))


def states(results: list[Result]) -> list[tuple[str, str]]:
    return [(one.name, one.state) for one in results]


WRITES = "(folder / 'answer.txt').write_text('42'); print('the table')"


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
    elsewhere = list(run_parts(parts[:1], tmp_path, time.monotonic() + LONG, 0, "another", Event(), lambda line: None))
    assert states(elsewhere) == [("steady", "done")]
    assert (tmp_path / "steady/count").read_text() == "111"


def test_ctrl_c_ends_the_part_that_runs_and_starts_no_other(tmp_path: Path) -> None:
    script = f"""
import sys, time
sys.path.append({str(PROGRAM.parent)!r})
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


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cpu"])
def test_the_plan(device: str) -> None:
    parts = parts_of(device)
    names = [one.name for one in parts]
    assert len(set(names)) == len(names)
    order = [name for name in names if name in {"tests", "kernel", "precision", "throughput", "energy", "sweep"}]
    assert order == ["tests", "kernel", "precision", "throughput", "energy", "sweep"]
    assert all(one.seconds > 0 and one.about for one in parts)
    comparisons = [one for one in parts if "compare" in one.command]
    assert all(one.command[-1] == FOLDER for one in comparisons)
    if device != "cpu":
        assert all(one.command[one.command.index("--device") + 1] == device for one in comparisons)
        modes = {one.command[one.command.index("--mode") + 1] for one in comparisons}
        assert modes == {"eager", "compile", "cudagraph", "compile+cudagraph", "eager,compile,cudagraph"}


def test_the_tests_of_the_plan_are_those_that_are_marked() -> None:
    (tests,) = (one for one in parts_of("cuda") if one.name == "tests")
    files = [word for word in tests.command if word.endswith(".py")]
    assert "tests/ops/test_clustering.py" in files
    for file in (ROOT / "tests").rglob("test_*.py"):
        marked = re.search(r"mark\.cuda\b", file.read_text(encoding="utf-8")) is not None
        assert marked == (str(file.relative_to(ROOT)) in files), file


def measured(tmp_path: Path) -> Iterator[str]:
    """The report's table of a comparison of two methods, one of which needs training."""
    out = tmp_path / "comparison"
    tokbench.compare(
        methods=["random_selection", "sit"],
        models=["digits_deit"],
        keep=[0.5],
        only=["macs", "latency"],
        batch_size=[1, 2],
        seeds=[0],
        seconds=0.01,
        baselines=["none"],
        out=out,
        progress=False,
    )
    return comparison_table(out)


def test_the_table_of_a_comparison_shows_what_was_measured_and_says_what_was_not(tmp_path: Path) -> None:
    lines = list(measured(tmp_path))
    table = tokbench.load(tmp_path / "comparison").table
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == 2 + (table.status == "ok").sum()  # a heading and a rule above them
    speedup = table[(table.method == "random_selection") & (table.batch_size == 2)].speedup.item()
    assert f" {speedup:.4g} " in next(row for row in rows if row.startswith("| random\\_selection | 2 "))
    assert lines[-1].startswith("- 2 of 6 rows, skipped: needs fine-tuned weights")
    assert lines[-1].endswith(" (sit)")
    records = tmp_path / "comparison/records.jsonl"
    kept = [line for line in records.read_text().splitlines() if json.loads(line)["kind"] == "macs"][:1]
    records.write_text("\n".join(kept) + "\n")  # as if it had been stopped early
    early = list(comparison_table(tmp_path / "comparison"))
    assert "- 4 of 6 rows, not measured yet (none, random\\_selection)" in early


def test_the_report_names_every_part_with_its_command_and_output(tmp_path: Path) -> None:
    parts = [
        part("good", WRITES),
        part("bad", "print('half a table'); sys.exit('what was wrong')"),
        part("no", "", gpus=1),
    ]
    machine = {
        "device_name": "a_machine",
        "versions": {"torch": "2.6"},
        "cuda": None,
        "cpus": 2,
        "platform": "Linux",
    }
    write_report(tmp_path, "python on_gpu.py", machine, parts, ran(parts, tmp_path))
    text = (tmp_path / "REPORT.md").read_text()
    assert text.startswith("# a\\_machine\n")
    assert "| [good](#good) | done | " in text
    assert " | what was wrong |" in text
    assert "| no | skipped | 0 | needs a CUDA device |" in text
    assert "## good\n\nabout good: done, " in text
    assert "python -c " in text
    assert "\nthe table\n" in text
    assert "\nhalf a table\nwhat was wrong\n" in text


def test_without_such_a_device_it_says_so() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "--device", "cuda:99"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("device 'cuda:99' is not available")
    assert len(done.stderr.splitlines()) == 1


def test_it_needs_none_of_the_wheels_that_only_some_parts_use() -> None:
    """What it imports itself, with the others out of reach."""
    others = "pytest triton pynvml flash_kmeans sklearn plotly matplotlib jinja2 ray optuna".split()
    script = f"""
import sys
sys.modules.update(dict.fromkeys({others!r}))  # importing any of them fails
sys.path.append({str(PROGRAM.parent)!r})
import on_gpu
import gpu.machine, gpu.plan, gpu.precision, gpu.report, gpu.two_gpus
print(on_gpu.kebab_case("NVIDIA GeForce RTX 4090"), len(gpu.precision.methods()) > 10)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "nvidia-geforce-rtx-4090 True\n"


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()
