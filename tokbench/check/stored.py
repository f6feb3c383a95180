"""What a check needs of a results directory: its rows by identity, their times and their answers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tokbench.errors import UserError
from tokbench.kinds.latency import LATENCY, NOISE
from tokbench.outcomes import RIGHT, UNREADABLE
from tokbench.results import Results
from tokbench.results.directory import log_ratios
from tokbench.results.plan import PlannedRow
from tokbench.rows import RowId


@dataclass(frozen=True, eq=False)
class Stored:
    """A results directory, row by row.

    Attributes:
        results: The directory.
        table: Each row of the table, column by column.
        ratios: (rounds,) log-ratios of the plain model's time to the row's; of the timed rows.
        answers: Whether each image was right, as booleans by the image's name; of the rows with all answers.
    """

    results: Results
    table: dict[RowId, dict[Hashable, Any]]
    ratios: dict[RowId, NDArray[np.float64]]
    answers: dict[RowId, pd.Series]

    @property
    def directory(self) -> Path:
        """Where."""
        return self.results.directory


def read_stored(directory: Path) -> Stored:
    """Read a results directory.

    Raises:
        UserError: It is missing, damaged, or of an unknown format.
    """
    if not directory.is_dir():
        raise UserError(f"no results in {directory}: there is no such folder; create it with tokbench compare --out")
    try:
        return _read(Results(directory))
    except (ValueError, KeyError, OSError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{directory} is damaged ({reason}): measure again with tokbench compare --fresh") from error


def _read(results: Results) -> Stored:
    if not results.environment:
        raise UserError(f"{results.directory} has no environment.json: run the same tokbench compare again")
    # If a merged directory has several keeps for one budget, the last one counts.
    rows = {row.matched_by: row for row in results.plan.rows}
    values = zip(results.plan.rows, results.table.to_dict("records"), strict=True)
    table = {row.matched_by: record for row, record in values}
    return Stored(results, table, _ratios(rows, results), _answers(rows, results))


def _ratios(rows: dict[RowId, PlannedRow], results: Results) -> dict[RowId, NDArray[np.float64]]:
    timed = {row: record for row, planned in rows.items() if (record := results.record(LATENCY, planned)) is not None}
    if any(results.read(NOISE, record.session) is None for record in timed.values()):
        damage = "a session's noise floor is missing"
        raise UserError(f"{results.directory} is damaged ({damage}): measure again with --fresh")
    return {row: log_ratios(record.base_s, record.other_s) for row, record in timed.items()}


def _answers(rows: dict[RowId, PlannedRow], results: Results) -> dict[RowId, pd.Series]:
    answers = {}
    names = list(results.images or {})
    for row, planned in rows.items():
        outcomes = results.outcomes(planned)
        if outcomes is None:
            continue
        if len(outcomes) != len(names):
            raise UserError(f"{results.directory} is damaged (its images are others than its answers'): use --fresh")
        marks = pd.Series(list(outcomes), index=names)
        answers[row] = marks[marks != UNREADABLE] == RIGHT
    return answers
