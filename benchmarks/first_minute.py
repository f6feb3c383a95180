"""How long `make compare` takes once everything is installed, and what it spends the time on.

    python benchmarks/first_minute.py [RUNS]

Runs `tokbench compare` in an empty folder, five times unless RUNS says otherwise, as a new user does: a new process and
no results of before. The minimum and the median are of the whole command. One more run, of the same functions in this
program's own process, is divided into phases. Nothing else may run on the machine.

Writes results/speed/first_minute.txt.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from output import SPEED, write_output

if TYPE_CHECKING:
    from tokbench.results import Results

TARGET = 60.0  # seconds
PHASES = {
    "macs": "counting MACs and classifying the images",
    "accuracy": "counting MACs and classifying the images",
    "agreement": "counting MACs and classifying the images",
    "latency": "timing",
}


def main(runs: str = "5") -> None:
    """Time the command, and print and write the results.

    Args:
        runs: How often it is run.
    """
    seconds = [_seconds_of_command() for _ in range(int(runs))]
    phases = _phases()
    met = "met" if min(seconds) <= TARGET else "missed"
    write_output(
        SPEED / "first_minute.txt",
        [
            f"tokbench compare, {runs} runs: {', '.join(f'{value:.1f}' for value in seconds)} s",
            f"minimum {min(seconds):.1f} s, median {median(seconds):.1f} s; target {TARGET:.0f} s: {met}",
            "",
            f"One run in phases, {sum(phases.values()):.1f} s:",
            *(f"{value:6.1f} s  {name}" for name, value in phases.items()),
        ],
    )


def _seconds_of_command() -> float:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        command = [sys.executable, "-m", "tokbench", "compare", "--out", str(Path(folder) / "results")]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        return time.perf_counter() - begin


class _Clock:
    """An observer that notes how long each kind of measurement takes."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def note(self, phase: str) -> None:
        """Count the time since the last note for a phase."""
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now

    def announce(self, text: str) -> None:
        """See `tokbench.run.observer.Observer`."""

    def planned(self, kind: str, total: int) -> None:
        """See `tokbench.run.observer.Observer`."""

    def measuring(self, kind: str, key: str) -> None:
        """See `tokbench.run.observer.Observer`."""

    def measured(self, kind: str, count: int = 1) -> None:
        """See `tokbench.run.observer.Observer`."""
        self.note(PHASES.get(kind, kind))


def _phases() -> dict[str, float]:
    """Seconds of each phase of one run."""
    clock = _Clock()
    from tokbench.cli.results import conclude
    from tokbench.comparison import carry_out, plan_comparison
    from tokbench.config import load_config

    clock.note("importing")

    @contextmanager
    def watch(results: Results) -> Iterator[_Clock]:
        clock.note("planning")
        yield clock
        clock.note("finishing")

    config = load_config(None)
    suite = config.suite(config.default_suite, {})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        finished = carry_out(plan_comparison(suite, config, [], out), out, watch=watch)
        clock.note("writing the tables")
        with redirect_stdout(StringIO()):
            conclude(finished.results, as_json=False)
        clock.note("printing, with the saving across models")
    return clock.seconds


if __name__ == "__main__":
    main(*sys.argv[1:])
