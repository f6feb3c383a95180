"""Does tokbench survive kills, flipped bits, damaged files and hostile code, and say in one line what is wrong?

    python benchmarks/faults.py [GROUP ...]

The groups of cases are in tests/faults; the tests try a few of each, this tries many. Every case states what is right:
the tables of an undisturbed run, or one line that names the cause. Each runs in forks of a process that has imported
torch, one such process for each of two CPUs, and all seeds are fixed, but when a kill strikes depends on the machine.

Prints a line for each group as it is done, `group: right of tried`, and each wrong case below it. With all groups,
writes results/trust/faults.txt. The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from output import TRUST, write_output
from rich.progress import Progress

CASES = Path(__file__).parents[1] / "tests" / "faults"
LABS = 2


def wrong_cases(cases: list[Any], labs: list[Any]) -> Iterator[tuple[int, str]]:
    """Try cases in all labs at once; the place and the description of each wrong one, in order."""
    waiting: SimpleQueue[tuple[int, Any]] = SimpleQueue()
    for numbered in enumerate(cases):
        waiting.put(numbered)
    with Progress(transient=True) as progress:
        task = progress.add_task("", total=len(cases))

        def work(lab: Any) -> list[tuple[int, str]]:
            found: list[tuple[int, str]] = []
            while True:
                try:
                    place, case = waiting.get_nowait()
                except Empty:
                    return found
                wrong = case.wrong(lab)
                if wrong:
                    found.append((place, f"{case.name}: {wrong}"))
                progress.advance(task)

        with ThreadPoolExecutor(len(labs)) as pool:
            yield from sorted(one for found in pool.map(work, labs) for one in found)


def report(names: list[str], groups: Any, labs: list[Any]) -> tuple[list[str], int]:
    """The lines of the output, and how many cases are wrong."""
    lines, wrong, tried = [], 0, 0
    for name in names:
        start = time.monotonic()
        cases = list(groups[name].long())
        found = [text for _, text in wrong_cases(cases, labs)]
        seconds = time.monotonic() - start
        lines += [f"{name}: {len(cases) - len(found)} of {len(cases)} right ({seconds:.0f} s)"]
        lines += [f"  {text}" for text in found]
        print(*lines[-1 - len(found) :], sep="\n", file=sys.stderr, flush=True)
        wrong, tried = wrong + len(found), tried + len(cases)
    return [*lines, f"all: {tried - wrong} of {tried} right"], wrong


def main() -> int:
    """Try the groups that are named, or all; the exit code."""
    sys.path.insert(0, str(CASES))
    groups: Any = importlib.import_module("groups").GROUPS
    lab: Any = importlib.import_module("lab").Lab
    names = sys.argv[1:] or list(groups)
    unknown = [name for name in names if name not in groups]
    if unknown:
        print(f"unknown group {unknown[0]!r}; known: {', '.join(groups)}", file=sys.stderr)
        return 2
    with lab() as one, lab() as two:
        lines, wrong = report(names, groups, [one, two][:LABS])
    if names == list(groups):
        write_output(TRUST / "faults.txt", lines)
    else:
        print(*lines, sep="\n")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
