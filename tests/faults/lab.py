"""Where faults are tried: a warm process, what an undisturbed run gives, and a folder for each case."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import pandas as pd
from warm_process import TABLE, Ended, Warm

COMPARE = (
    "compare", "--only", "macs,accuracy", "--limit", "50", "--accuracy-batch", "25", "--keep", "0.5",
    "--models", "digits_deit", "--baselines", "none", "--methods",
)  # fmt: skip
METHODS = "grid_pooling,random_selection"
TINY = (*COMPARE, METHODS)
"""A comparison that takes a second: 3 records of MACs and 10 of accuracy."""

TABLES = ("table.parquet", "correctness.parquet")


class Case(Protocol):
    """One fault."""

    @property
    def name(self) -> str:
        """What is done, with the seed where there is one."""

    def wrong(self, lab: Lab) -> str:
        """Try it; what went wrong, or nothing."""


class Lab:
    """Where cases are tried, one at a time; to be used in a `with` statement.

    Attributes:
        warm: Runs commands.
        oracle: The directory of an undisturbed run of `TINY`.
        seconds: How long that run took.
        right: The rows of its table, as Python code reads them.
    """

    def __init__(self) -> None:
        """Start the process and make the oracle."""
        self._root = Path(tempfile.mkdtemp(prefix="tokbench-faults-"))
        self.warm = Warm()
        self.oracle = self._root / "oracle"
        start = time.monotonic()
        self.must(self.warm.run(*TINY, "--out", self.oracle, folder=self._root))
        self.seconds = time.monotonic() - start
        read = self.warm.run(TABLE, self.oracle, folder=self._root)
        self.must(read)
        self.right: list[dict[str, Any]] = json.loads(read.out)

    def __enter__(self) -> Lab:
        """Use it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process and remove all folders."""
        self.warm.__exit__(kind, error, trace)
        shutil.rmtree(self._root, ignore_errors=True)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty folder for a case."""
        folder = Path(tempfile.mkdtemp(dir=self._root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def shelf(self, name: str) -> Path:
        """A folder that stays as long as the lab, for what cases share."""
        shelf = self._root / "shared" / name
        shelf.mkdir(parents=True, exist_ok=True)
        return shelf

    def copy_oracle(self, folder: Path) -> Path:
        """A copy of the oracle's directory, to be damaged."""
        return Path(shutil.copytree(self.oracle, folder / "results"))

    @staticmethod
    def must(ended: Ended) -> None:
        """Stop where an undisturbed command does not work.

        Raises:
            RuntimeError: It does not.
        """
        if ended.code != 0:
            raise RuntimeError(f"an undisturbed run fails: {ended}\n{ended.err}")


def unequal(found: Path, oracle: Path, methods: tuple[str, ...] = ()) -> str:
    """How the tables of a directory differ from the oracle's; empty where they do not.

    Args:
        found: A directory.
        oracle: The right one.
        methods: Compare only the rows of these; all of the tables if there are none.
    """
    for name in TABLES:
        if not (found / name).is_file():
            return f"{name} is missing"
        right, here = (pd.read_parquet(directory / name) for directory in (oracle, found))
        if methods:
            right, here = (_rows_of(table, methods) for table in (right, here))
        if list(right.columns) != list(here.columns) or len(right) != len(here):
            return f"{name} has {here.shape} cells, not {right.shape}"
        wrong = [column for column in right.columns if not right[column].equals(here[column])]
        if wrong:
            values = [table[wrong[0]].tolist()[:8] for table in (here, right)]
            return f"{name}: {', '.join(wrong)}: {values[0]}, not {values[1]}"
    if not methods and (found / "table.csv").read_bytes() != (oracle / "table.csv").read_bytes():
        return "table.csv differs"
    return ""


def _rows_of(table: pd.DataFrame, methods: tuple[str, ...]) -> pd.DataFrame:
    """The rows of methods, without what depends on the other rows."""
    table = table[table["method"].isin(methods)].reset_index(drop=True)
    table = table.drop(columns=["pareto", "pareto_time", "best_at_compute"], errors="ignore")
    return table.astype(dict.fromkeys(table.select_dtypes("category").columns, object))


def measured_twice(directory: Path) -> str:
    """Which keys are more than once in the records; empty where none is."""
    places = [(record["kind"], record["key"]) for record in map(json.loads, (directory / "records.jsonl").open("rb"))]
    twice = sorted({place for place in places if places.count(place) > 1})
    return f"measured twice: {twice}" if twice else ""


def left_over(directory: Path) -> str:
    """Which temporary files are still there; empty where none is."""
    names = sorted(path.name for path in directory.iterdir() if path.name.startswith(".") and path.name != ".lock")
    return f"left behind: {names}" if names else ""
