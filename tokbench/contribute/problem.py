"""What can be wrong with contributed results, each problem by its name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Name(StrEnum):
    """The names of the problems; docs/contributing-results.md says what each means."""

    MISSING_FILE = "missing-file"
    UNKNOWN_FILE = "unknown-file"
    UNREADABLE_FILE = "unreadable-file"
    UNKNOWN_FORMAT = "unknown-format"
    UNKNOWN_VERSION = "unknown-version"
    UNKNOWN_MODEL = "unknown-model"
    UNKNOWN_METHOD = "unknown-method"
    CHANGED_PLAN = "changed-plan"
    WRONG_KEY = "wrong-key"
    SEVERAL_MACHINES = "several-machines"
    INCOMPLETE_ENVIRONMENT = "incomplete-environment"
    CONTRADICTING_ENVIRONMENT = "contradicting-environment"
    FUTURE_DATE = "future-date"
    DAMAGED_RECORD = "damaged-record"
    UNPLANNED_RECORD = "unplanned-record"
    MISSING_RECORD = "missing-record"
    IMPOSSIBLE_RECORD = "impossible-record"
    CONTRADICTING_ANSWERS = "contradicting-answers"
    COPIED_TIMES = "copied-times"
    CHANGED_TABLE = "changed-table"
    CHANGED_IMAGES = "changed-images"
    PRIVATE_TEXT = "private-text"
    WRONG_MACS = "wrong-macs"
    IMPOSSIBLE_TIME = "impossible-time"
    DIFFERS_FROM_REFERENCE = "differs-from-reference"


@dataclass(frozen=True)
class Problem:
    """A reason why results are not accepted.

    Attributes:
        name: What sort of problem it is.
        text: Where it is and what is wrong, on one line.
    """

    name: Name
    text: str

    def __str__(self) -> str:
        """`changed-table: table.csv, row 3 (tome at keep 0.7), top1: 91.2, but the records give 91.0`."""
        return f"{self.name}: {self.text}"


@dataclass(frozen=True)
class Verdict:
    """The result of a check.

    Attributes:
        problems: Why the results are not accepted; empty where they are.
        notes: What could not be checked, and why.
    """

    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
