"""The findings of a check: differences between two results, each with an outcome, and the resulting exit code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

NOTHING = 0
BLANKS: dict[str, Any] = {"seed": None, "batch_size": None, "mode": ""}


class Outcome(StrEnum):
    """The meaning of a difference, worst first."""

    INVALID = "invalid"
    REGRESSED = "regressed"
    AMBIGUOUS = "ambiguous"
    MOVED = "moved"
    IMPROVED = "improved"


# The first of these outcomes that was found decides; 2 is for user errors.
EXIT_CODES = {Outcome.INVALID: 4, Outcome.REGRESSED: 1, Outcome.AMBIGUOUS: 3}


@dataclass(frozen=True)
class Row:
    """What identifies a row of the table in any results directory.

    Findings that do not depend on seed, batch size or mode (such as counts) have rows with these fields blank, which
    stand for all of them.

    Attributes:
        model: The model.
        method: The method.
        params: Its parameters, as the table shows them.
        regime: `off-the-shelf` or `fine-tuned`.
        site: Where in a block it acts.
        schedule: As the table shows it.
        keep: The fraction of tokens that a reduction keeps; None if the schedule does not take one.
        seed: The seed of a stochastic method.
        dtype: The model's precision.
        batch_size: The size of the timed batches.
        mode: How the timed model runs.
    """

    model: str
    method: str
    params: str
    regime: str
    site: str
    schedule: str
    keep: float | None
    seed: int | None
    dtype: str
    batch_size: int | None
    mode: str

    def covers(self, other: Row) -> bool:
        """Whether this row is the other one or stands for it."""
        blank = {name: value for name, value in BLANKS.items() if getattr(self, name) == value}
        return self == replace(other, **blank)


@dataclass(frozen=True)
class Finding:
    """A difference between the old and the new results.

    Attributes:
        outcome: What it means.
        column: The column of the table that differs, or another name of what differs.
        note: The reason, or the size of the difference, in words.
        row: The row that differs; None if it concerns the results as a whole.
        old: The old value; None if there is none to show.
        new: The new value; None if there is none to show.
    """

    outcome: Outcome
    column: str
    note: str
    row: Row | None = None
    old: float | str | None = None
    new: float | str | None = None


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        title: What was compared with what.
        rows: The rows that were compared.
        findings: The differences, in the order of the rows.
        notes: Further information for the reader, such as what was left out and why.
    """

    title: str
    rows: tuple[Row, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 ok, 1 regressed, 3 ambiguous, 4 invalid."""
        found = {finding.outcome for finding in self.findings}
        return next((code for outcome, code in EXIT_CODES.items() if outcome in found), NOTHING)

    def about(self, row: Row) -> tuple[Finding, ...]:
        """The findings that concern a row."""
        return tuple(f for f in self.findings if f.row is not None and f.row.covers(row))
