"""Work on a method's code, which may raise anything, end the process or hang.

`step` marks such work. A process that watches this one (see `tokbench.supervisor`) then knows what was being done when
it ended or made no progress, and starts it again; the same step then raises instead of running. Without one, as in
Python code that calls `tokbench.compare`, steps only run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tokbench.errors import UserError

LIMIT = 600.0  # seconds that a step may go without progress, unless a command sets another limit
START_OVER = 75  # the exit code that asks for a new process (EX_TEMPFAIL of sysexits.h)
SAME_CTRL_C = 0.5  # seconds within which a second SIGINT belongs to the first: a terminal sends it to every process


class EndedError(RuntimeError):
    """An earlier process ended in this step, or was ended because it made no progress."""


@dataclass
class _Watched:
    """This process, as far as its supervisor is concerned.

    Attributes:
        pipe: The file descriptor that the supervisor reads; None without one.
        ended: What became of earlier processes, by step.
        remembered: What earlier processes have left for this one.
        interrupted: When Ctrl-C was pressed, in seconds of `time.monotonic`.
    """

    pipe: int | None = None
    ended: Mapping[str, str] = field(default_factory=dict)
    remembered: Mapping[str, Any] = field(default_factory=dict)
    interrupted: float | None = None


_this = _Watched()


def watched_through(pipe: int, ended: Mapping[str, str], remembered: Mapping[str, Any]) -> None:
    """Report steps to a supervisor from now on.

    Args:
        pipe: The file descriptor that it reads from.
        ended: What became of earlier processes, by step.
        remembered: What earlier processes have left for this one.
    """
    _this.pipe, _this.ended, _this.remembered = pipe, ended, remembered


@contextmanager
def step(name: str) -> Iterator[None]:
    """Mark what is being done.

    Raises:
        EndedError: An earlier process ended in a step of this name.
    """
    if name in _this.ended:
        raise EndedError(_this.ended[name])
    process = os.getpid()
    _report(begin=name)
    try:
        yield
    finally:
        if os.getpid() != process:  # a copy that a method has forked: it must not measure everything, too
            os._exit(0)
        _report(end=name)


def alive() -> None:
    """Say that the present step makes progress."""
    _report(alive=True)


def remember(name: str, value: Any) -> None:
    """Leave something that JSON has for the next process, if this one is ended."""
    _report(remember=name, value=value)


def remembered(name: str) -> Any:
    """What an earlier process has left under a name; None where there is nothing."""
    return _this.remembered.get(name)


def limit_steps(seconds: float | None) -> None:
    """Have the supervisor end this process when a step makes no progress for so long; None for no limit."""
    _report(limit=seconds)


def start_over(reason: str) -> NoReturn:
    """End this process, and have the supervisor start a new one that resumes.

    Args:
        reason: Why, for the message.

    Raises:
        UserError: There is no supervisor.
    """
    if _this.pipe is None:
        raise UserError(f"{reason}: run the same again in a new process to resume")
    sys.exit(START_OVER)


def ends_the_run(error: BaseException) -> bool:
    """Whether an exception that came out of a method's code is not the method's, but Ctrl-C."""
    return isinstance(error, KeyboardInterrupt) and (
        _this.interrupted is not None or signal.getsignal(signal.SIGINT) is not _on_ctrl_c
    )


@contextmanager
def distinguish_ctrl_c() -> Iterator[None]:
    """Within the block, tell Ctrl-C from a `KeyboardInterrupt` that a method raises; only the main thread can."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGINT, _on_ctrl_c)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _on_ctrl_c(number: int, frame: Any) -> None:
    now = time.monotonic()
    if _this.interrupted is not None and now - _this.interrupted < SAME_CTRL_C:
        return
    _this.interrupted = now
    raise KeyboardInterrupt


def _report(**event: Any) -> None:
    if _this.pipe is None:
        return
    try:
        os.write(_this.pipe, json.dumps(event).encode() + b"\n")
    except OSError:  # a method has closed it: from here on nobody watches
        _this.pipe = None
