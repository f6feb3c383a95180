"""What identifies a row of the table."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd

from tokbench.names import FINE_TUNED, IMG_SIZE, PLAIN

BLANK: dict[str, Any] = {"keep": None, "seed": None, "batch_size": None}  # of the others: the empty text


@dataclass(frozen=True)
class RowId:
    """What identifies a row in any results directory.

    What does not depend on seed, batch size or mode (a count, say) is identified with these left blank, and then stands
    for all rows that differ in nothing else.

    Attributes:
        model: The model.
        method: The method, `none` for the plain model.
        params: All of its parameters, sorted, as `algorithm=kmeans,weighted=true`.
        regime: `off-the-shelf`, `calibrated` or `fine-tuned`.
        site: Where in a block it acts; empty for the plain model.
        schedule: As the table shows it, without the keep.
        keep: The fraction that a reduction leaves; None where the schedule fixes the counts.
        seed: Of a stochastic method, else None.
        dtype: Of the model.
        batch_size: Images per timed batch.
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

    @classmethod
    def of(cls, row: Mapping[Hashable, Any] | Mapping[str, Any]) -> RowId:
        """The identity of a row of the table, given by column."""
        values = {name: None if pd.isna(row[name]) else row[name] for name in FIELDS}
        keep, seed, batch_size = values["keep"], values["seed"], values["batch_size"]
        texts: dict[str, Any] = {name: str(value or "") for name, value in values.items() if name not in BLANK}
        return cls(
            **texts,
            keep=None if keep is None else float(keep),
            seed=None if seed is None else int(seed),
            batch_size=None if batch_size is None else int(batch_size),
        )

    @property
    def has_fewer_pixels(self) -> bool:
        """Whether it is a baseline: the plain model with fewer pixels, as in `none(img_size=192)`."""
        return self.method == PLAIN and f"{IMG_SIZE}=" in self.params

    def without(self, *names: str) -> RowId:
        """The same with these fields left blank."""
        return replace(self, **{name: BLANK.get(name, "") for name in names})

    def covers(self, other: RowId) -> bool:
        """Whether the other is this row, or one of those that this one stands for."""
        blank = [name for name in ("seed", "batch_size", "mode") if getattr(self, name) == BLANK.get(name, "")]
        return self == other.without(*blank)


def with_fewer_pixels(table: pd.DataFrame) -> pd.Series:
    """Which rows of a table have `RowId.has_fewer_pixels`."""
    return table["method"].eq(PLAIN) & table["params"].fillna("").str.contains(f"{IMG_SIZE}=")


def plain_models(table: pd.DataFrame) -> pd.Series:
    """Which rows of a table are the plain model itself: with all of its pixels, its own attention and weights."""
    own = table["params"].fillna("").eq("") & table["regime"].fillna("").ne(FINE_TUNED)
    return table["method"].eq(PLAIN) & own


FIELDS = tuple(field.name for field in fields(RowId))
"""The columns of the table that identify a row."""

TIMED = ("dtype", "batch_size", "mode")
"""Those that only describe how a row is timed."""

ANSWER = tuple(name for name in FIELDS if name not in TIMED)
"""The columns that identify an answer to all images."""


def columns_without(*names: str) -> list[str]:
    """The columns that identify a row, without some: to group the rows that differ in nothing else."""
    return [name for name in FIELDS if name not in names]
