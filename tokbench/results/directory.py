"""A results directory, opened once: its plan, its records, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pandas.api.types import is_numeric_dtype
from pydantic import ValidationError

from tokbench.errors import UserError
from tokbench.files import write_atomically, writing
from tokbench.kinds import KINDS
from tokbench.kinds.accuracy import ACCURACY, correctness
from tokbench.kinds.base import Kind
from tokbench.kinds.latency import LATENCY
from tokbench.kinds.redundancy import reconstruction_table, spectra_table
from tokbench.outcomes import shard_key
from tokbench.results.plan import PLAN, Plan, PlannedRow, read_plan
from tokbench.results.store import FAILED, MAKE_ROOM, RECORDS, UNREADABLE_IMAGE, Records
from tokbench.results.table import build_table
from tokbench.results.versus import versus

ENVIRONMENT = "environment.json"
IMAGES = "images.parquet"
TABLES = ("table.parquet", "table.csv")

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a cell begins with that a spreadsheet takes for a formula."""

R = TypeVar("R")


class Results:
    """What a comparison has left in a directory, finished or not.

    Attributes:
        directory: Where.
        plan: What was to be measured.
    """

    def __init__(self, directory: Path, records: Records | None = None) -> None:
        """Open a directory.

        Args:
            directory: What `tokbench compare` or `tokbench merge` wrote.
            records: Its records, where they are open already.

        Raises:
            UserError: The directory holds no results, or they are damaged.
        """
        self.directory = directory
        self.plan: Plan = read_plan(directory)
        self._records = Records(directory) if records is None else records
        self._parsed: dict[tuple[str, str], tuple[dict[str, Any], Any]] = {}

    # Raw measurements

    def read(self, kind: Kind[R], key: str) -> R | None:
        """The record with a key, None where there is none yet.

        Raises:
            UserError: It is not what the kind writes.
        """
        place = (kind.name, key)
        value = self._records.get(*place)
        if value is None:
            return None
        if place not in self._parsed or self._parsed[place][0] is not value:  # measured again
            try:
                self._parsed[place] = value, kind.adapter.validate_python(value)
            except ValidationError as error:
                reason = f"{kind.name}: {error.errors()[0]['msg']}"
                raise UserError(f"{self.directory} is damaged ({reason}): measure again with --fresh") from None
        parsed: R = self._parsed[place][1]
        return parsed

    def record(self, kind: Kind[R], row: PlannedRow) -> R | None:
        """The record of a row, None where it is not wanted or not there yet."""
        return self.read(kind, row.keys[kind.name]) if kind.name in row.keys else None

    def keys_of(self, kind: Kind[Any], key: str) -> list[str]:
        """The keys of the records that a measurement consists of: one, or one for each shard."""
        return [shard_key(key, shard) for shard in self.plan.shards] if kind.sharded else [key]

    def shards_of(self, kind: Kind[R], row: PlannedRow) -> list[R]:
        """The records of all shards of a row; empty until all are there."""
        if kind.name not in row.keys:
            return []
        found = [self.read(kind, key) for key in self.keys_of(kind, row.keys[kind.name])]
        records = [record for record in found if record is not None]
        return records if len(records) == len(found) else []

    def outcomes(self, row: PlannedRow) -> str | None:
        """How every image came out, one character each (see `tokbench.outcomes`); None until all are there."""
        records = self.shards_of(ACCURACY, row)
        return "".join(record.outcomes for record in records) if records else None

    def wanted(self, row: PlannedRow) -> list[tuple[str, str]]:
        """Kind and key of the records that a row consists of."""
        known = {KINDS[name]: key for name, key in row.keys.items() if name in KINDS}  # a newer version may have more
        return [(kind.name, part) for kind, key in known.items() for part in self.keys_of(kind, key)]

    def missing(self, row: PlannedRow) -> list[tuple[str, str]]:
        """Kind and key of the records that a row still lacks."""
        return [place for place in self.wanted(row) if self._records.get(*place) is None]

    def failure(self, kind: str, key: str) -> Mapping[str, Any] | None:
        """What says under `reason` why a record is missing, and whether it is skipped; None where nothing does."""
        found = self._records.get(FAILED, f"{kind}/{key}")
        return found if found is not None and isinstance(found.get("reason"), str) else None

    @property
    def unreadable(self) -> dict[str, str]:
        """Why images could not be decoded, by their names."""
        if self.plan.images is None:
            return {}
        identity = self.plan.images.identity
        found = {
            key.partition("/")[2]: str(record["reason"])
            for (kind, key), record in self._records.all().items()
            if kind == UNREADABLE_IMAGE and record.get("reason") and identity in (key.partition("/")[0], "")
        }
        return {name: found[name] for name in self.images or {} if name in found}

    @property
    def damaged_lines(self) -> int:
        """How many lines of the records are damaged; they count as missing."""
        return self._records.damaged

    def refresh(self) -> None:
        """Read what has been measured since."""
        self._records.refresh()
        self.__dict__.pop("table", None)

    # What else the directory holds

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What it was measured on; empty where that was not written yet.

        Raises:
            UserError: The file is damaged.
        """
        file = self.directory / ENVIRONMENT
        if not file.is_file():
            return {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("it holds no object")
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{file} is damaged ({error}): run the same tokbench compare again") from None
        return content

    @cached_property
    def images(self) -> dict[str, int] | None:
        """Each image's class, by its name and in the set's order; None without data."""
        file = self.directory / IMAGES
        if not file.is_file():
            return None
        try:
            with file.open("rb") as content:
                images = pd.read_parquet(content)
            return dict(zip(images["image"], images["label"].tolist(), strict=True))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{file} is damaged ({error}): run the same tokbench compare again") from None

    # Tables

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per planned row, with the columns of `tokbench.results.COLUMNS`, as far as they were measured."""
        return build_table(self)

    def versus(self, *methods: str) -> pd.DataFrame:
        """All methods against one of them, or each of several, on the same images: see `tokbench.results.versus`.

        Args:
            methods: As in `evit`, `score_pruning(score=cls)` or `none(img_size=192)`.

        Raises:
            UserError: A method is not in the directory, or accuracy was not measured.
        """
        return versus(self, *methods)

    @property
    def answers(self) -> pd.DataFrame:
        """Long: a line for each image and measured row, with `top1` and `top5` as booleans."""
        return correctness(self)

    @property
    def times(self) -> pd.DataFrame:
        """Long: a line for each round of each timed row, with the seconds of the plain model and of the row."""
        parts = []
        for row in self.plan.rows:
            record = self.record(LATENCY, row)
            if record is not None:
                part = pd.DataFrame({"plain_s": record.base_s, "row_s": record.other_s})
                names = {name: getattr(row.id, name) for name in ("model", "method", "params", "keep")}
                part = part.assign(**names, batch_size=row.id.batch_size, mode=row.id.mode, session=record.session)
                parts.append(part.rename_axis("round").reset_index())
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    @property
    def spectra(self) -> pd.DataFrame:
        """The spectra of the plain models' blocks, where `--analyse` measured them."""
        return spectra_table(self)

    @property
    def reconstruction(self) -> pd.DataFrame:
        """The methods' reconstruction errors, where `--analyse` measured them."""
        return reconstruction_table(self)


def log_ratios(plain_s: ArrayLike, row_s: ArrayLike) -> NDArray[np.float64]:
    """(rounds,) log-ratios of the plain model's time to the row's."""
    ratios: NDArray[np.float64] = np.log(plain_s) - np.log(row_s)
    return ratios


def check_places(directory: Path) -> None:
    """Check, before anything is measured, that a comparison's files can be written where they belong.

    Raises:
        UserError: Something else than a file is in one of the places.
    """
    names = (PLAN, RECORDS, ENVIRONMENT, IMAGES, *TABLES)
    wrong = next((directory / name for name in names if _is_in_the_way(directory / name)), None)
    if wrong is not None:
        raise UserError(f"{wrong} is no regular file: move it away, or choose another folder with --out DIR")


def _is_in_the_way(path: Path) -> bool:
    return path.exists() and not path.is_file()


def write_images(directory: Path, labels: Mapping[str, int]) -> None:
    """Write which images were classified, in which order, and the class of each: what the outcomes refer to."""
    images = pd.DataFrame({"image": list(labels), "label": list(labels.values())})
    _write(directory / IMAGES, images)


def write_tables(results: Results) -> pd.DataFrame:
    """Write `table.parquet`, `table.csv` and the kinds' own tables, and return the main one."""
    table = results.table
    for name in TABLES:
        _write(results.directory / name, table)
    for kind in KINDS.values():
        for name, content in kind.tables(results).items():
            _write(results.directory / name, content)
    return table


def _write(file: Path, table: pd.DataFrame) -> None:
    with writing(file, MAKE_ROOM):
        if file.suffix == ".parquet":
            write_atomically(file, lambda path: _write_parquet(path, table))
        else:
            write_atomically(file, lambda path: without_formulas(table).to_csv(path, index=False))


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    with path.open("wb") as file:  # arrow cannot open a path that is not UTF-8
        table.to_parquet(file)


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """A table for a csv file, with an apostrophe before each text that a spreadsheet would run as a formula."""
    texts = [name for name in table.columns if not is_numeric_dtype(table[name])]
    return table.assign(**{name: table[name].map(_as_text) for name in texts})


def _as_text(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
