"""What a check finds: differences between two results, each with an outcome, and the exit code that they add up to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

NOTHING = 0
BLANKS: dict[str, Any] = {"seed": None, "batch_size": None, "mode": ""}


class Outcome(StrEnum):
    """What a difference means."""

    INVALID = "invalid"
    REGRESSED = "regressed"
    AMBIGUOUS = "ambiguous"
    MOVED = "moved"
    IMPROVED = "improved"


# The first of these that was found decides; 2 is misuse.
EXIT_CODES = {Outcome.INVALID: 4, Outcome.REGRESSED: 1, Outcome.AMBIGUOUS: 3}


@dataclass(frozen=True)
class Row:
    """What names a row of the table in any results directory.

    What does not depend on seed, batch size or mode (a count, say) is told with these blank, and is about all of them.

    Attributes:
        model: The model.
        method: The method.
        params: Its parameters, as the table shows them.
        regime: `off-the-shelf` or `fine-tuned`.
        site: Where in a block it acts.
        schedule: As the table shows it.
        keep: The fraction that a reduction leaves, where the schedule takes one.
        seed: Of a stochastic method.
        dtype: Of the model.
        batch_size: Of the timed batches.
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
        """Whether the other is this row or one of those it stands for."""
        blank = {name: value for name, value in BLANKS.items() if getattr(self, name) == value}
        return self == replace(other, **blank)


@dataclass(frozen=True)
class Finding:
    """A difference.

    Attributes:
        outcome: What it means.
        column: Of the table, or what else it is about.
        note: Why, or how large it is, in words.
        row: Whose; None where it is about everything.
        old: The value before; None where there is none to show.
        new: The value now.
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
        title: What was held against what.
        rows: All that were compared.
        findings: The differences, in the order of the rows.
        notes: What a reader should know besides: what was left out and why.
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
