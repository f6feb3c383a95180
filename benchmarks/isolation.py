"""What do the checks of what a method has changed cost?

    python benchmarks/isolation.py [DATA WEIGHTS]

tokbench's own methods are not checked. Here all of them are, as if they came from somewhere else.

Runs the embedded suite and adds up the time that is spent on snapshots of the process and of the plain models and on
comparing with them, and the time that the rest takes. Both are of one run, so that the speed of the machine cancels
out. With a folder of photographs and DeiT-Ti's weights it also runs a sweep of four methods and two keeps over 200 of
the photographs, and writes results/trust/isolation.txt.
"""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from output import TRUST, write_output

import tokbench
from tokbench import guard
from tokbench.names import PLAIN
from tokbench.run import bench, cells, prepare

MODEL = "deit_tiny_patch16_224"
METHODS = ("random_selection", "tome", "evit", "token_pooling(algorithm=kmeans)")


def timed(owner: Any, name: str, spent: list[float]) -> None:
    """Have a function add the seconds that it takes."""
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def measured(*given: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(*given, **named)
        finally:
            spent.append(time.perf_counter() - start)

    setattr(owner, name, measured)


def share(name: str, spent: list[float], **settings: Any) -> str:
    """Run a comparison; a line with the time of the checks and of the rest."""
    spent.clear()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        tokbench.compare(out=Path(folder) / "results", progress=False, **settings)
        whole = time.perf_counter() - start
    checks = sum(spent)
    ratio = whole / (whole - checks)
    return f"{name}: {len(spent)} snapshots and checks, {checks:.2f} s of {whole:.1f} s: {ratio:.4f} times as long"


def main() -> int:
    """Run one comparison or both."""
    spent: list[float] = []
    for module in (cells, prepare, bench):
        vars(module)["is_built_in"] = lambda method: method == PLAIN
    for owner in (guard.Surroundings, guard.Untouched):
        for name in ("__init__", "restore"):
            timed(owner, name, spent)
    timed(guard.Untouched, "answers_as_before", spent)
    lines = [share("embedded suite", spent)]
    if len(sys.argv) == 3:
        data, weights = sys.argv[1:]
        sweep = {"data": data, "weights": weights, "models": [MODEL], "methods": METHODS, "keep": [0.7, 0.5]}
        lines.append(share("sweep", spent, suite="imagenet", only=["macs", "accuracy"], limit=200, **sweep))
        write_output(TRUST / "isolation.txt", lines)
    else:
        print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
