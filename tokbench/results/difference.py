"""A value of a row that is not the same in two runs, and tables and words for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tokbench.rows import FIELDS, RowId

MOST_IMAGES = 3
"""Images that are named in a line."""


@dataclass(frozen=True)
class Difference:
    """A value of a row that is not the same in two runs.

    Attributes:
        run: The name of the run; of those that must agree, one that differs from what most have.
        other_run: The run that it is compared with.
        row: The row; blank in what the value does not depend on.
        column: Of the table.
        value: In the run.
        other_value: In the other run.
        images: On how many images the answers differ; None for what is no answer.
        which: The names of these images, of many the first few.
        why: In which conditions the runs differ; empty where they must agree.
        gained: Images that the run has right and the other one wrong; None for what is no accuracy.
        lost: Images that the run has wrong and the other one right.
        delta: Top-1 of the run above that of the other, in points, on the images of both.
        delta_lo: Lower end of its paired 95 % interval (Tango's).
        delta_hi: Upper end.
    """

    run: str
    other_run: str
    row: RowId
    column: str
    value: float | str
    other_value: float | str
    images: int | None = None
    which: str = ""
    why: str = ""
    gained: int | None = None
    lost: int | None = None
    delta: float | None = None
    delta_lo: float | None = None
    delta_hi: float | None = None


COLUMNS = tuple(name for name in Difference.__annotations__ if name != "row")
MUST_AGREE = COLUMNS[: COLUMNS.index("why")]


def frame_of(found: Sequence[Difference], columns: Sequence[str]) -> pd.DataFrame:
    """A line for each difference, with the columns that identify its row after the names of the runs."""
    names = [*columns[:2], *FIELDS, *columns[2:]]
    lines = [{**vars(one), **vars(one.row)} for one in dict.fromkeys(found)]  # batch sizes share their answers
    numbers = {name: "Int64" for name in ("seed", "batch_size", "images", "gained", "lost") if name in names}
    return pd.DataFrame(lines, columns=names).astype(numbers)


def difference_note(line: Mapping[Hashable, Any]) -> str:
    """What a line of `disagreements` or `differences` says, without its row and values, in words.

    As in `c against a: 1 other answer (img-17)` or `c against a: 2 other answers (img-17, img-20), -0.10 points
    [-0.56, +0.28], 0 gained, 2 lost; torch 2.14.0 and 2.15.0`.
    """
    parts = []
    if pd.notna(line["images"]):
        count = int(line["images"])
        parts.append(f"{count} other {'answer' if count == 1 else 'answers'} ({line['which']})")
    if pd.notna(line.get("delta")):
        parts.append(f"{line['delta']:+.2f} points [{line['delta_lo']:+.2f}, {line['delta_hi']:+.2f}]")
        parts.append(f"{line['gained']} gained, {line['lost']} lost")
    words = f"{line['run']} against {line['other_run']}" + (f": {', '.join(parts)}" if parts else "")
    return f"{words}; {line['why']}" if line.get("why") else words


def named(images: Sequence[str]) -> str:
    """The names of images, of many the first few."""
    more = f" and {len(images) - MOST_IMAGES} more" if len(images) > MOST_IMAGES else ""
    return ", ".join(images[:MOST_IMAGES]) + more
