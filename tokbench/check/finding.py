"""The findings of a check: differences between two results, each with an outcome, and the resulting exit code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tokbench.rows import RowId

NOTHING = 0


class Outcome(StrEnum):
    """The meaning of a difference, worst first."""

    INVALID = "invalid"
    DISAGREES = "disagrees"
    REGRESSED = "regressed"
    AMBIGUOUS = "ambiguous"
    MOVED = "moved"
    IMPROVED = "improved"


# The first of these outcomes that was found decides; 2 is for user errors.
EXIT_CODES = {Outcome.INVALID: 4, Outcome.DISAGREES: 1, Outcome.REGRESSED: 1, Outcome.AMBIGUOUS: 3}


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
    row: RowId | None = None
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
        sides: What the old and the new values are called.
    """

    title: str
    rows: tuple[RowId, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    sides: tuple[str, str] = ("old", "new")

    @property
    def verdict(self) -> str:
        """The outcome that decides, or `ok`."""
        return next((outcome.value for outcome in EXIT_CODES if outcome in self._outcomes), "ok")

    @property
    def exit_code(self) -> int:
        """0 ok, 1 regressed or disagreeing, 3 ambiguous, 4 invalid."""
        return next((code for outcome, code in EXIT_CODES.items() if outcome in self._outcomes), NOTHING)

    @property
    def _outcomes(self) -> set[Outcome]:
        return {finding.outcome for finding in self.findings}

    def about(self, row: RowId) -> tuple[Finding, ...]:
        """The findings that concern a row."""
        return tuple(f for f in self.findings if f.row is not None and f.row.covers(row))


def exit_code_of(reports: Iterable[Report]) -> int:
    """The exit code of several checks: that of the worst finding of all."""
    return Report("", findings=tuple(finding for report in reports for finding in report.findings)).exit_code
