"""The log of a training run: a CSV with a row every few steps and at the end of each epoch."""

from __future__ import annotations

import csv
import os
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from tokbench.files import OTHER_FOLDER, write_atomically, writing


@dataclass(frozen=True)
class Row:
    """A row of the log.

    Attributes:
        epoch: Counted from 1.
        step: Optimiser steps done, over all epochs.
        loss: Mean over the steps since the row before.
        lr: The learning rate of the last of them.
        images_per_second: Since the row before, over all processes; without validation.
        seconds: Of training, over all runs that were interrupted.
        top1: On the validation images, in percent, in the last row of an epoch; None elsewhere.
    """

    epoch: int
    step: int
    loss: float
    lr: float
    images_per_second: float
    seconds: float
    top1: float | None = None


_HEAD = ",".join(field.name for field in fields(Row)) + "\n"
_STEP = [field.name for field in fields(Row)].index("step")


class Log:
    """The file, to which rows are appended."""

    def __init__(self, file: Path, step: int) -> None:
        """Begin the file, or go on after a step.

        Args:
            file: Where it is; its folder exists.
            step: The step of the state that training goes on from. Rows of later steps are removed: they come again.

        Raises:
            UnwritableError: The file cannot be written.
        """
        self._file = file
        kept = _rows_until(file, step) if step and file.exists() else []
        with writing(file, OTHER_FOLDER):
            write_atomically(file, lambda path: path.write_text(_HEAD + "".join(kept), encoding="utf-8"))

    def append(self, row: Row) -> None:
        """Add a row, in a single write.

        Raises:
            UnwritableError: The file cannot be written.
        """
        line = ",".join(_text(value) for value in astuple(row)) + "\n"
        with writing(self._file, OTHER_FOLDER):
            file = os.open(self._file, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)


def _rows_until(file: Path, step: int) -> list[str]:
    """The whole lines of steps up to this one; what is left of a line whose writing was interrupted is dropped."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
    cells = zip(lines, csv.reader(lines), strict=True)
    whole = len(fields(Row))
    return [line for line, own in cells if line.endswith("\n") and len(own) == whole and int(own[_STEP]) <= step]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
