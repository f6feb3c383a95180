"""What a check says: its outcome, and in one line what was expected, what came, and where."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["passed", "failed", "reported", "skipped"]


@dataclass(frozen=True)
class Result:
    """The outcome of one check of one method.

    Attributes:
        method: The method as it was asked for, or the file where it did not import.
        check: The check's name.
        outcome: `reported` tells what is no failure but worth knowing; `skipped` that the check says nothing here.
        message: One line; empty where the check passed and there is nothing to tell.
    """

    method: str
    check: str
    outcome: Outcome
    message: str = ""


class ViolationError(Exception):
    """The contract is broken: what was expected and what came."""


class ReportError(Exception):
    """No failure, but worth telling."""


class SkipError(Exception):
    """The check says nothing about this method, or not on this machine."""


def require(holds: bool, expected: str, came: object) -> None:
    """Go on only where something holds.

    Raises:
        ViolationError: It does not.
    """
    if not holds:
        raise ViolationError(f"expected {expected}, got {came}")


def one_line(error: BaseException) -> str:
    """An exception as one line: its type unless it is ours, its message's first line, and what it happened with."""
    first = next(iter(str(error).strip().splitlines()), "")
    text = first if isinstance(error, ViolationError) else f"{type(error).__name__}: {first}".removesuffix(": ")
    notes = getattr(error, "__notes__", [])
    return f"{text} ({notes[0]})" if notes else text


def line_in(file: str, error: BaseException) -> int | None:
    """The innermost line of a file that an exception passed through."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None


def place(file: str, line: int) -> str:
    """`file:line`, relative to the current folder where the file lies in it."""
    path = Path(file)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"
