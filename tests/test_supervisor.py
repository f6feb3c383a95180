"""A step that ends or hangs its process is named and left out, and everything else is done once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import ctypes, os, signal, sys, threading, time
from tokbench.isolation import EndedError, alive, limit_steps, start_over, step
from tokbench.supervisor import supervise

def write(text):
    with open("log", "a") as file:
        file.write(text + "\\n")

def work():
    limit_steps(0.6)
    for name, act in STEPS.items():
        if os.path.exists(f"done-{name}"):
            continue
        try:
            with step(name):
                act()
            write(f"did {name}")
        except EndedError as error:
            write(f"{name}: {error}")
        open(f"done-{name}", "w").close()
    return 7

def progress():
    for _ in range(20):
        time.sleep(0.1)
        alive()

def once():
    if not os.path.exists("over"):
        open("over", "w").close()
        start_over("a method changed what could not be put back")

STEPS = {
    "fine": lambda: None,
    "exit": lambda: os._exit(0),
    "crash": lambda: ctypes.string_at(0),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(60),
    "slow": progress,
    "over": once,
    "thread": lambda: threading.Thread(target=time.sleep, args=(60,)).start(),
    "copy": os.fork,
    "closes": lambda: os.closerange(3, 50),
    "last": lambda: time.sleep(0.4),
}
sys.exit(supervise(work, lambda line: write(f"said: {line}")))
"""


def test_steps_that_end_or_hang_the_process_are_left_out(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, check=False, timeout=50)
    assert ended.returncode == 7
    log = (tmp_path / "log").read_text().splitlines()
    reasons = {
        "exit": "ended the process with exit code 0",
        "crash": "ended the process (SIGSEGV)",
        "killed": "ended the process (SIGKILL)",
        "hang": "made no progress for 0.6 s; --timeout allows more",
    }
    assert [line for line in log if line.startswith("said")] == [
        f"said: {name}: {reason}; going on without it" for name, reason in reasons.items()
    ]
    assert [line for line in log if not line.startswith("said")] == [
        "did fine", *(f"{name}: {reason}" for name, reason in reasons.items()),
        "did slow", "did over", "did thread", "did copy", "did closes", "did last",
    ]  # fmt: skip


WAITING = """
import os, sys, time
from tokbench.isolation import distinguish_ctrl_c, step
from tokbench.supervisor import supervise

def work():
    with step("long"):
        print(os.getpid(), flush=True)
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            return 130
    return 0

with distinguish_ctrl_c():
    sys.exit(supervise(work, print))
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP), (signal.SIGKILL, -9)],
)
def test_a_signal_to_the_command_ends_both_processes(tmp_path: Path, number: int, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(number)
        assert process.wait(timeout=30) == code
        assert process.stdout.read() == ""
    for _ in range(500):
        if not Path(f"/proc/{child}/stat").exists() or not _runs(child):
            return
        time.sleep(0.01)
    pytest.fail("the child process still runs")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or ") Z " not in stat.read_text()
