"""The result of a check: its outcome, and a one-line message with expected value, actual value and location."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokbench.errors import describe

Outcome = Literal["passed", "failed", "reported", "skipped"]


@dataclass(frozen=True)
class Result:
    """The outcome of one check of one method.

    Attributes:
        method: The method as written by the user, or the file if it could not be imported.
        check: The check's name.
        outcome: `reported` is a remark that is not a failure; `skipped` means that the check does not apply here.
        message: One line; empty if the check passed.
    """

    method: str
    check: str
    outcome: Outcome
    message: str = ""


class ViolationError(Exception):
    """The method violates the contract; the message gives the expected and the actual value."""


class ReportError(Exception):
    """A remark that is not a failure."""


class SkipError(Exception):
    """The check does not apply to this method, or cannot run on this machine."""


def require(holds: bool, expected: str, got: object) -> None:
    """Raise an error unless a condition holds.

    Args:
        holds: The condition.
        expected: The expected value or property, for the message.
        got: The actual one.

    Raises:
        ViolationError: The condition does not hold.
    """
    if not holds:
        raise ViolationError(f"expected {expected}, got {got}")


def one_line(error: BaseException) -> str:
    """An exception in one line: its type (except ViolationError), the first line of its message, and its first note."""
    text = describe(error)
    if isinstance(error, ViolationError):
        text = text.removeprefix(f"{ViolationError.__name__}: ")
    notes = getattr(error, "__notes__", [])
    return f"{text} ({notes[0]})" if notes else text


def line_in(file: str, error: BaseException) -> int | None:
    """The innermost line of a file in an exception's traceback; None if the file is not in it."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None


def location(file: str, line: int) -> str:
    """`file:line`, relative to the current folder if the file is inside it."""
    path = Path(file)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"
