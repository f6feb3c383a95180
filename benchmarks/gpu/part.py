"""One part of a run: a command with a time limit, and what became of it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

FOLDER = "FOLDER"  # stands for the part's own folder in a command

State = Literal["done", "failed", "out of time", "stopped", "skipped", "not started"]


@dataclass(frozen=True)
class Part:
    """A command that measures one thing and writes its files to a folder of its own.

    Attributes:
        name: Also the folder's.
        about: What it measures, in one line.
        command: The arguments of Python; `FOLDER` stands for the part's folder.
        seconds: Roughly how long it takes.
        modules: What must be installed besides what every part needs.
        gpus: How many CUDA devices it needs.
    """

    name: str
    about: str
    command: tuple[str, ...]
    seconds: float
    modules: tuple[str, ...] = ()
    gpus: int = 0

    def arguments(self, folder: str) -> list[str]:
        """The arguments of Python."""
        return [word.replace(FOLDER, folder) for word in self.command]

    def text(self, folder: str) -> str:
        """The command as one would type it."""
        return shlex.join(["python", *self.arguments(folder)])

    def lacks(self, gpus: int) -> str:
        """Why it cannot run on a machine with so many CUDA devices; empty if it can."""
        if gpus < self.gpus:
            return "needs a CUDA device" if self.gpus == 1 else f"needs {self.gpus} CUDA devices"
        missing = [module for module in self.modules if find_spec(module) is None]
        return f"needs {', '.join(missing)}, which is not installed" if missing else ""


@dataclass(frozen=True)
class Result:
    """What became of a part.

    Attributes:
        name: The part's.
        command: As one would type it.
        state: How it ended.
        seconds: How long it ran.
        reason: Why it is not done; empty if it is.
        ended: The date and time, in ISO format.
        machine: What it ran on: the device and the versions of torch and tokbench.
    """

    name: str
    command: str
    state: State
    seconds: float
    reason: str
    ended: str
    machine: str


def limit_of(part: Part, later: Sequence[Part], left: float) -> float:
    """How many seconds a part may take: twice its estimate or its share of what is left, whichever is longer.

    Args:
        part: The part.
        later: Those that come after it.
        left: Seconds left for it and for them.
    """
    share = left * part.seconds / (part.seconds + sum(other.seconds for other in later))
    return min(left, max(2 * part.seconds, share))
