"""What the site's pages are made from: the runs below a folder of results."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tokbench.results import Results
from tokbench.results.several import runs_under


@dataclass(frozen=True)
class Source:
    """What the pages are made from.

    Attributes:
        results: The folder of results, `results/` of the repository.
        runs: Every run below it, in the order of their names.
    """

    results: Path
    runs: tuple[Results, ...]

    def name(self, run: Results) -> str:
        """A run's name on the site: its path below the folder of results, as in `reference/embedded`."""
        return run.directory.relative_to(self.results).as_posix()

    def anchor(self, run: Results) -> str:
        """The anchor of a run on the page of runs, and the name of its files: `reference-embedded`."""
        return re.sub(r"[^a-z0-9]+", "-", self.name(run).lower()).strip("-")


def read_source(results: Path) -> Source:
    """Open every run below a folder: every directory that has a plan.

    Raises:
        UserError: A run is damaged.
    """
    return Source(results, tuple(map(Results, runs_under(results))))
