"""What a kind of measurement is, and what a column of the table is.

A kind knows everything about one sort of measurement: what a record holds, what its cache key depends on, how it is
measured, which columns it fills and how long it takes. Planning, running, distribution, the table, the live view and
merging loop over kinds. Only shortcuts such as `Results.times` know one by name.

A kind has a reading half and a measuring half. Reading results must not need torch, so a kind imports what it measures
with inside the methods that measure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import TypeAdapter

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from tokbench.results import PlannedRow, Results
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row
    from tokbench.suite import Suite

R = TypeVar("R")


@dataclass(frozen=True)
class Column:
    """A column of the table: everything that terminal, page, papers and exports need to know of it.

    Attributes:
        name: As in `table.parquet`, with its unit (`latency_ms`).
        dtype: The pandas type.
        heading: What a reader sees above it; empty for the name with spaces.
        unit: What a reader sees below the heading.
        interval: The ends of its 95 % interval are the columns `<interval>_lo` and `<interval>_hi`; empty for a column
            without one.
        spread: The column with the standard deviation over seeds, which is shown after the number.
        out_of: The column with the plain model's number in the same rounds, which is shown after the number.
        compared: Whether it compares with the plain model, so that its interval is shown after the number.
        decimals: Decimals to show at least, however wide the interval.
        step: The smallest difference worth showing, for what is counted and has no interval; None elsewhere.
        exact: Every digit is exact; the table shows three significant ones of the largest value.
        share_of: Shown as a percentage of this column.
        only_methods: Whether it says nothing about the plain model with all of its pixels, where it is 0 or 1 by
            definition.
        dropped: For the tables of terminal and papers: 0 is never shown there, 1 on any width; of the others the
            largest is dropped first where there is no room. Papers show up to 4.
    """

    name: str
    dtype: str = "float64"
    heading: str = ""
    unit: str = ""
    interval: str = ""
    spread: str = ""
    out_of: str = ""
    compared: bool = False
    decimals: int | None = None
    step: float | None = None
    exact: bool = False
    share_of: str = ""
    only_methods: bool = False
    dropped: int = 0

    @property
    def title(self) -> str:
        """The heading, or the name with spaces."""
        return self.heading or self.name.replace("_", " ")

    @property
    def ends(self) -> tuple[str, str] | None:
        """The names of the columns with the ends of the interval."""
        return (f"{self.interval}_lo", f"{self.interval}_hi") if self.interval else None


@dataclass(frozen=True)
class Conditions:
    """What the key of a measurement may depend on; each kind takes its part.

    Attributes:
        method: Versions, model, weights, and the method with its parameters, schedule and source.
        device: Type and name of the device, and the dtype.
        machine: The same with what times depend on besides: the build of torch, driver, power limit.
        data: The identity of the image set, None without one.
        train: The identity of the labelled images of `--train`, None without.
        adaptive: Whether the number of tokens depends on the images.
        batch_size: Images per timed batch.
        mode: How the timed model runs.
        threads: CPU threads.
        seed: Of a stochastic method, else None.
        suite: The other settings.
    """

    method: Mapping[str, Any]
    device: Mapping[str, Any]
    machine: Mapping[str, Any]
    data: str | None
    train: str | None
    adaptive: bool
    batch_size: int
    mode: str
    threads: int
    seed: int | None
    suite: Suite


@dataclass(frozen=True)
class Pace:
    """How fast a model is, for estimates.

    Attributes:
        image_s: Seconds per image of the plain model.
        decode_s: Seconds to decode one image.
        images: Images in the set; 0 without data.
        train_images: Images of `--train`; 0 without.
        suite: The settings.
    """

    image_s: float
    decode_s: float
    images: int
    train_images: int
    suite: Suite


class Kind(ABC, Generic[R]):
    """One kind of measurement.

    Attributes:
        name: Of its records, and in `--only`.
        record: The type of a record, a frozen dataclass of JSON values.
        columns: What it adds to the table.
        on_request: Whether `--only` can name it; the others are measured along with something else.
        exclusive: Whether it needs the device for itself.
        sharded: Whether there is one record per shard of the image set; such kinds go through all images once for all
            models.
        exact: Whether two records with the same key must be equal.
        needs_labels: Whether the images must have labels.
        compares_classes: Whether the model's classes must be the data's.
        compares_answers: Whether the plain model must answer the same images.
        live_columns: The columns that `live` gives numbers for.
    """

    name: ClassVar[str]
    record: ClassVar[type[Any]]
    columns: ClassVar[tuple[Column, ...]] = ()
    on_request: ClassVar[bool] = True
    exclusive: ClassVar[bool] = False
    sharded: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    compares_classes: ClassVar[bool] = False
    compares_answers: ClassVar[bool] = False
    live_columns: ClassVar[tuple[str, ...]] = ()

    @cached_property
    def adapter(self) -> TypeAdapter[R]:
        """Converts records to and from JSON values."""
        return TypeAdapter(self.record)

    # Planning

    def wanted(self, row: Row, suite: Suite, device: torch.device) -> bool:
        """Whether a suite asks for this measurement of a row."""
        return self.name in suite.only

    def needs_data(self, suite: Suite) -> tuple[str, str] | None:
        """What images are needed for, as in "no data to <...>", and how to do without; None where they are not."""
        return None

    @abstractmethod
    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        """What a measurement depends on, besides the code: the content of its key."""

    @abstractmethod
    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """Roughly how long rows of one model take, one row per measurement."""

    # Measuring

    def measure(self, rows: Mapping[str, Row], bench: Bench) -> None:
        """Measure rows that have no record yet, and write a record for each; by default one after the other.

        Args:
            rows: By key; of one model, which is on its device, or of several for a sharded kind.
            bench: The models, the images and the place for records.
        """
        for key, row in bench.each(self, rows):
            bench.attempt(self, key, partial(self.measure_row, row, bench))

    def measure_row(self, row: Row, bench: Bench) -> R:
        """Measure one row."""
        raise NotImplementedError(f"{type(self).__name__} measures rows together")

    # Reading

    def fill(self, row: PlannedRow, plain: PlannedRow | None, results: Results) -> dict[str, Any]:
        """The values of this kind's columns, those that could be filled.

        Args:
            row: A row of the plan.
            plain: The plain model's row with the same model, batch size and mode.
            results: Where their records are.
        """
        return {}

    def remarks(self, row: PlannedRow, results: Results) -> list[str]:
        """What a reader of the row should know about its measurement."""
        return []

    def complete(self, table: pd.DataFrame, results: Results) -> pd.DataFrame:
        """Fill the columns that need the whole table."""
        return table

    def live(self, records: Sequence[R]) -> dict[str, float]:
        """Numbers for the live view, by column, from the records of one measurement so far."""
        return {}

    def tables(self, results: Results) -> dict[str, pd.DataFrame]:
        """Tables of its own that are written next to the main one, by file name."""
        return {}
