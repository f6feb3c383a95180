"""Running a command in a child process, and starting it again where a method's code has ended it.

The child says which step it is in (see `tokbench.isolation`). Where it dies in a step, makes no progress or takes the
machine's memory, a new child does everything else: what was measured is on the disk, and the step fails by name.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tokbench.isolation import LIMIT, START_OVER, watched_through

LOOK = 0.1  # seconds between two looks at the child
MEMORY_LEFT = 0.03  # of the machine's memory; a child that leaves less in a step is ended before the system must choose

BY_THE_USER = frozenset(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
)


def can_supervise() -> bool:
    """Whether the command may run in a child process: its output is this process's, and forking is safe.

    It is not where Python code has redirected the output, as tests and notebooks do, nor once torch has threads.
    """
    torch = sys.modules.get("torch")
    safe = torch is None or torch.get_num_threads() == 1
    return hasattr(os, "fork") and sys.stdout is sys.__stdout__ and safe


def supervise(work: Callable[[], int], tell: Callable[[str], object]) -> int:
    """Run work in a child process until it is done.

    Args:
        work: What to run; its result is the exit code.
        tell: Gets one line for each step that has ended a process.

    Returns:
        The exit code. In the child, this does not return but raises SystemExit.
    """
    ended: dict[str, str] = {}
    remembered: dict[str, Any] = {}
    while True:
        child = _start(work, ended, remembered)
        code, reason = child.wait()
        if code == START_OVER and not reason:
            continue
        if not reason or not child.steps or child.steps[-1] in ended:
            return code
        ended[child.steps[-1]] = reason
        tell(f"{child.steps[-1]}: {reason}; going on without it")


def _start(work: Callable[[], int], ended: dict[str, str], remembered: dict[str, Any]) -> _Child:
    _flush()
    events, report = os.pipe()
    lifeline, mine = os.pipe()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # until each side has its own
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, handler)
        os.close(events)
        os.close(mine)
        threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
        watched_through(report, ended, remembered)
        code = work()
        if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
            _flush()
            os._exit(code)  # Python would wait for ever for a thread of a method
        sys.exit(code)
    os.close(report)
    os.close(lifeline)
    return _Child(pid, events, mine, handler, remembered)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def _end_with_parent(lifeline: int) -> None:
    """End this process when its parent does, however that ends: the pipe's other end closes then."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(eq=False)
class _Child:
    """A child process.

    Attributes:
        pid: Its number.
        events: Where it says what it does.
        lifeline: Closed, it ends.
        sigint: What this process did on SIGINT before.
        remembered: What it leaves for the next one.
        steps: What it does, innermost last.
        limit: Seconds without progress after which it is ended.
        pending: The beginning of a report whose end has not come yet.
    """

    pid: int
    events: int
    lifeline: int
    sigint: Any
    remembered: dict[str, Any]
    steps: list[str] = field(default_factory=list)
    limit: float | None = LIMIT
    pending: bytes = b""

    def wait(self) -> tuple[int, str]:
        """Wait until it ends, and end it where it must be.

        Returns:
            Its exit code, and why it ended in the middle of a step; empty where it did not.
        """
        forwarded = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
        handlers: dict[int, Any] = {number: signal.signal(number, self._forward) for number in forwarded}
        handlers[signal.SIGINT] = self.sigint  # it has been ignored since before the fork
        try:
            reason = self._watch()
            self._read()
            _, status = os.waitpid(self.pid, 0)
        finally:
            os.close(self.events)
            os.close(self.lifeline)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number in BY_THE_USER and not reason:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            known = number in {one.value for one in signal.Signals}
            name = signal.Signals(number).name if known else f"signal {number}"
            return 128 + number, reason or f"ended the process ({name})"
        code = os.WEXITSTATUS(status)
        return code, reason or (f"ended the process with exit code {code}" if self.steps and code != START_OVER else "")

    def _watch(self) -> str:
        """Until it has ended by itself, or is ended for the reason returned."""
        quiet = 0.0
        before = time.monotonic()
        while not self._has_ended():
            if self._read():
                quiet = 0.0
            # Not by the clock alone: both processes may be stopped for hours.
            now = time.monotonic()
            quiet += min(now - before, 2 * LOOK)
            before = now
            if not self.steps:
                quiet = 0.0
            elif self.limit is not None and quiet > self.limit:
                return self._end(f"made no progress for {self.limit:g} s; --timeout allows more")
            elif _memory_left() < MEMORY_LEFT and self._is_large():
                return self._end("took almost all of the machine's memory")
        return ""

    def _has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _read(self) -> bool:
        """Take what it has reported; whether there was anything."""
        try:
            ready, _, _ = select.select([self.events], [], [], LOOK)
        except InterruptedError:
            return False
        if not ready:
            return False
        read = os.read(self.events, 1 << 16)
        if not read:
            time.sleep(LOOK)  # the pipe of a process that ends closes a little earlier
            if not self._has_ended():  # its code has closed the pipe: it can no longer be watched
                self.steps.clear()
        *whole, self.pending = (self.pending + read).split(b"\n")
        for line in whole:
            event = json.loads(line)
            if "begin" in event:
                self.steps.append(event["begin"])
            elif "end" in event:
                self.steps.remove(event["end"])
            elif "remember" in event:
                self.remembered[event["remember"]] = event["value"]
            elif "limit" in event:
                self.limit = event["limit"]
        return bool(whole)

    def _family(self) -> list[psutil.Process]:
        """It and all processes that it has started."""
        try:
            process = psutil.Process(self.pid)
            return [*process.children(recursive=True), process]
        except psutil.NoSuchProcess:
            return []

    def _is_large(self) -> bool:
        """Whether most of the memory in use is its own."""
        held = 0
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                held += process.memory_info().rss
        return held > psutil.virtual_memory().used / 2

    def _end(self, reason: str) -> str:
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return reason

    def _forward(self, number: int, frame: Any) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def _memory_left() -> float:
    """The part of the memory that is free, of this container or of the machine."""
    memory = psutil.virtual_memory()
    left = float(memory.available / memory.total)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.stat")
    try:
        total = int(limit.read_text(encoding="ascii"))
        stat = dict(line.split() for line in used.read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):  # no such container, or no limit
        return left
    return min(left, 1 - (int(stat["anon"]) + int(stat.get("shmem", 0))) / total)
