"""Several results directories side by side.

Nothing is joined: each run stays as it is, and rows of unlike machines stay rows of their own (`tokbench merge` joins
the parts of one comparison). A speedup is against the same machine's plain model and may be read beside another run's;
a time may not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import pandas as pd

from tokbench.errors import UserError
from tokbench.results.directory import Results
from tokbench.results.disagreements import differences, disagreements
from tokbench.results.plan import PLAN

RUN = "run"

TIMES = (
    *("latency_ms", "latency_ms_lo", "latency_ms_hi", "latency_ms_p90", "latency_ms_p99", "plain_latency_ms"),
    *("host_ms", "images_per_s", "throughput", "throughput_lo", "throughput_hi", "train_images_per_s"),
)
"""The columns that say how fast a machine is. Ratios such as `speedup` are against the same machine."""


@dataclass(frozen=True, eq=False)
class Combined:
    """Several runs side by side.

    Attributes:
        runs: The runs by their names: the directory's own, preceded by its parents' where several have the same.
    """

    runs: Mapping[str, Results]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows of all runs, each with its run's name in the first column, `run`."""
        tables = []
        for name, results in self.runs.items():
            table = results.table.copy()
            table.insert(0, RUN, pd.Series(name, table.index, dtype="string"))
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def disagreements(self) -> pd.DataFrame:
        """Exact values that must agree and do not; see `tokbench.results.disagreements`."""
        return disagreements(self.runs)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Exact values of the same row that differ and may, since the conditions differ."""
        return differences(self.runs)


def combine(runs: Sequence[Results]) -> Combined:
    """Put runs side by side.

    Args:
        runs: At least one.

    Raises:
        UserError: A directory occurs twice.
    """
    places = [results.directory.resolve() for results in runs]
    twice = next((place for place, count in Counter(places).items() if count > 1), None)
    if twice is not None:
        given = runs[places.index(twice)].directory
        raise UserError(f"{given} is given more than once: give each results directory once")
    return Combined(dict(zip(_names(places), runs, strict=True)))


def without_times(table: pd.DataFrame) -> pd.DataFrame:
    """A table of several runs without the times, which nothing may be concluded from across machines and sessions."""
    return table.assign(**dict.fromkeys(TIMES, math.nan))


def runs_under(folder: Path) -> list[Path]:
    """The results directories in a folder, at any depth, sorted; the folder itself too if it is one."""
    return sorted(plan.parent for plan in folder.rglob(PLAN) if plan.is_file())


@overload
def load(directory: Path | str, /) -> Results: ...


@overload
def load(directory: Path | str, second: Path | str, /, *others: Path | str) -> Combined: ...


def load(directory: Path | str, /, *others: Path | str) -> Results | Combined:
    """Open a results directory: `tokbench.load("results/embedded").table`; or several of them side by side.

    Args:
        directory: What `tokbench compare` or `tokbench merge` wrote, finished or not.
        *others: More of them.

    Returns:
        The results of a single directory; several are `Combined`, whose table says in the column `run` where a row is
        from, and whose `disagreements` are exact values that should be equal and are not.

    Raises:
        UserError: A directory holds no results, they are damaged, or it is given twice.
    """
    first, *rest = (Results(Path(path)) for path in (directory, *others))
    return combine([first, *rest]) if rest else first


def _names(places: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as it takes to tell them apart."""
    names = [place.name for place in places]
    depth = 1
    while len(set(names)) < len(names):
        depth += 1
        counts = Counter(names)
        names = [
            name if counts[name] == 1 else "/".join(place.parts[-depth:])
            for name, place in zip(names, places, strict=True)
        ]
    return names
