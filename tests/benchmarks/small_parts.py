"""Parts that do little, for the tests of the program for a GPU's owner."""

import time
from pathlib import Path
from threading import Event
from typing import Any

from gpu import run
from gpu.part import FOLDER, Part, Result
from gpu.run import run_parts

MACHINE = "a machine"
LONG = 3600.0

WRITES = "(folder / 'answer.txt').write_text('42'); print('the table')"
"""Code of a part that is done."""


def part(name: str, code: str, seconds: float = 10, **needs: Any) -> Part:
    """A part that runs Python code, in which `folder` is its folder."""
    given = f"from pathlib import Path; folder = Path({FOLDER!r}); import sys, time; {code}"
    return Part(name, f"about {name}", ("-c", given), seconds, **needs)


def ran(parts: list[Part], out: Path, left: float = LONG, gpus: int = 0, machine: str = MACHINE) -> list[Result]:
    """The results of parts that have this many seconds in all."""
    end = time.monotonic() + run.RESERVE + left
    return list(run_parts(parts, out, end, gpus, machine, Event(), lambda line: None))


def states(results: list[Result]) -> list[tuple[str, str]]:
    """How each has ended, by name."""
    return [(one.name, one.state) for one in results]
