"""Runs parts one after the other, each in a process of its own, and keeps what is finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from gpu.part import Part, Result, State, limit_of
from tokbench.files import write_atomically

ROOT = Path(__file__).parents[2]

PART, OUTPUT, ERRORS = "part.json", "output.txt", "errors.txt"

LOOK = 0.1  # seconds between two looks at a process
GRACE = 10.0  # seconds that a part has to write what it has, once it is asked to stop
RESERVE = GRACE + 5.0  # seconds kept for that and for the report
SHORTEST = 5.0  # with fewer seconds left, no part is started

STOPPED = "the run was stopped"


@contextmanager
def stop_on_signals() -> Iterator[Event]:
    """An event that Ctrl-C and SIGTERM set, so that they strike between two steps and not within one."""
    stop = Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def run_parts(
    parts: Sequence[Part], out: Path, end: float, gpus: int, machine: str, stop: Event, tell: Callable[[str], object]
) -> Iterator[Result]:
    """Run the parts in order, and give the result of each once it has ended.

    A part that an earlier run has done on the same machine, by the same command, is not run again.

    Args:
        parts: What to run.
        out: Where each has a folder of its own.
        end: When everything must have ended, in the seconds of `time.monotonic`.
        gpus: The number of CUDA devices.
        machine: What it runs on, in words.
        stop: Once it is set, the part that runs is stopped, and no other is started.
        tell: Gets a line for each part that starts.
    """
    known = {part.name: kept(part, out, machine) for part in parts}
    lacking = {part.name: part.lacks(gpus) for part in parts}
    waiting = [part for part in parts if known[part.name] is None and not lacking[part.name]]
    for part in parts:
        earlier, lacks = known[part.name], lacking[part.name]
        left = end - RESERVE - time.monotonic()
        if earlier is not None:
            yield earlier
        elif lacks:
            yield _not_run(part, out, machine, "skipped", lacks)
        elif stop.is_set():
            yield _not_run(part, out, machine, "not started", STOPPED)
        elif left < SHORTEST:
            yield _not_run(part, out, machine, "not started", "no time is left: run again to go on")
        else:
            limit = limit_of(part, waiting[waiting.index(part) + 1 :], left)
            tell(f"{part.name}: {part.about} (at most {limit:.0f} s)")
            yield run_part(part, out, limit, machine, stop)


def run_part(part: Part, out: Path, limit: float, machine: str, stop: Event) -> Result:
    """Run a part, and write its output and its result into its folder.

    Args:
        part: The part.
        out: Where its folder is.
        limit: Seconds after which it is stopped.
        machine: What it runs on, in words.
        stop: Stops it once it is set.
    """
    folder = out / part.name
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with (folder / OUTPUT).open("wb") as output, (folder / ERRORS).open("wb") as errors:
        # -P: the current folder is no place to import from, so that what is installed is what runs.
        command = [sys.executable, "-P", *part.arguments(str(folder))]
        # A session of its own: Ctrl-C reaches this process alone, and everything that the part starts ends with it.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},  # the last line of the errors is to be an error
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        while process.poll() is None and not stop.is_set() and time.monotonic() - begin < limit:
            time.sleep(LOOK)
        code = process.poll()
        _end(process)
    state: State = "done"
    reason = ""
    if code is None:
        state, reason = ("stopped", STOPPED) if stop.is_set() else ("out of time", f"took longer than {limit:.0f} s")
    elif code:
        state, reason = "failed", _last_line(folder / ERRORS) or f"exit code {code}: see its output"
    result = Result(part.name, part.text(_shown(folder)), state, time.monotonic() - begin, reason, _now(), machine)
    write_atomically(folder / PART, lambda path: path.write_text(json.dumps(asdict(result), indent=2) + "\n"))
    return result


def kept(part: Part, out: Path, machine: str) -> Result | None:
    """The result of an earlier run that need not be repeated."""
    file = out / part.name / PART
    if not file.is_file():
        return None
    result = Result(**json.loads(file.read_text()))
    same = result.command == part.text(_shown(out / part.name)) and result.machine == machine
    return result if same and result.state == "done" else None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a part to stop as Ctrl-C would, then end it and all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    with suppress(ProcessLookupError):  # nothing is left of it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _not_run(part: Part, out: Path, machine: str, state: State, reason: str) -> Result:
    return Result(part.name, part.text(_shown(out / part.name)), state, 0.0, reason, _now(), machine)


def _shown(folder: Path) -> str:
    return str(folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder)


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
