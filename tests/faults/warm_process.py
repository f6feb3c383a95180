"""Runs tokbench commands in forks of one process that has imported torch, so that hundreds take minutes.

A fork is a process of its own: it may be killed, crash, hang or take memory, and ends as the command would. `Warm`
starts the process (`fork_server.py`) and asks it for commands.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

LIMIT = 60.0  # seconds for a command that should take one
SERVER = Path(__file__).with_name("fork_server.py")
TABLE = "table"  # instead of a command: prints the table of a directory as Python code reads it


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code, or the negative number of a signal; None if it did not end within its time.
        out: What it printed.
        err: What it printed to standard error.
        left: How many processes of its own were still there a few seconds after it.
    """

    code: int | None
    out: str
    err: str
    left: int

    @property
    def refused(self) -> bool:
        """Whether one line says what is wrong."""
        lines = self.err.splitlines()
        return self.code == 2 and len(lines) == 1 and lines[0].startswith("tokbench: ") and lines[0].isprintable()

    @property
    def crashed(self) -> bool:
        """Whether there was a traceback, a signal or no end."""
        return self.code is None or self.code < 0 or "Traceback" in self.err

    def __str__(self) -> str:
        """The exit code and the last line of what it printed to standard error."""
        code = "no end" if self.code is None else f"exit {self.code}"
        lines = self.err.strip().splitlines()
        count = f", {len(lines)} lines" if len(lines) > 1 else ""
        kind = " with a traceback" if "Traceback" in self.err else ""
        return f"{code}{count}{kind}: {lines[-1][:300]}" if lines else code


class Warm:
    """The process that forks; to be used in a `with` statement, by one thread at a time."""

    def __init__(self) -> None:
        """Start it."""
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        """A new process, which has imported everything."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environment["CUDA_VISIBLE_DEVICES"] = ""  # whose address space is larger than the limit
        environment["PYTHONWARNINGS"] = "ignore::FutureWarning,ignore::DeprecationWarning"  # of importing timm
        root = Path(__file__).parents[2]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH")]))
        command = [sys.executable, str(SERVER)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd="/"
        )
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"the process that forks does not start: exit code {process.wait()}")
        return process

    def __enter__(self) -> Warm:
        """Use it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def run(
        self,
        *argv: str | Path,
        folder: Path,
        limit: float = LIMIT,
        kill_after: float | None = None,
        kill_children: bool = False,
    ) -> Ended:
        """Run a command.

        Args:
            argv: Its arguments, or `TABLE` and a directory.
            folder: Its working directory, which also gets what it prints, in two hidden files.
            limit: Seconds after which it is ended.
            kill_after: Seconds after which it is killed; None for never.
            kill_children: Kill the processes that it has started too, at the same moment.
        """
        request = {
            "argv": [str(argument) for argument in argv],
            "folder": str(folder),
            "limit": limit,
            "kill_after": kill_after,
            "kill_children": kill_children,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:  # a command has ended it, or the system, which was short of memory
            code, self._process = self._process.wait(), self._start()
            return Ended(None, "", f"the process that forks was ended: exit code {code}", 0)
        answer = json.loads(line)
        out, err = ((folder / name).read_text("utf-8", "replace") for name in (".out", ".err"))
        return Ended(answer["code"], out, err, answer["left"])
