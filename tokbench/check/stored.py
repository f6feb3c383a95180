"""Reading a results directory for a check: its rows by name, and what was recorded of each."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tokbench.check.finding import Row
from tokbench.compare.records import NOISE
from tokbench.errors import UserError
from tokbench.results.store import ENVIRONMENT, PLAN, Records
from tokbench.results.table import read_table
from tokbench.schedule import takes_keep

CORRECTNESS = "correctness.parquet"
ANSWERED = ("model", "method", "params", "site", "schedule", "keep", "seed")
"""What names an answer to all images, in the columns of `correctness.parquet`."""


@dataclass(frozen=True, eq=False)
class Results:
    """What a comparison has left in its directory.

    Attributes:
        directory: Where.
        plan: What was to be measured.
        environment: On what.
        table: Each row of the table, column by column.
        ratios: (rounds,) log-ratios of the plain model's time to the row's; of the rows that were timed.
        answers: Whether each image was right, as booleans by the image's name; of the rows that were shown any.
    """

    directory: Path
    plan: dict[str, Any]
    environment: dict[str, Any]
    table: dict[Row, dict[Hashable, Any]]
    ratios: dict[Row, NDArray[np.float64]]
    answers: dict[Row, pd.Series]


def read_results(directory: Path) -> Results:
    """Read a results directory.

    Raises:
        UserError: It is missing, damaged, or not of this format.
    """
    if not directory.is_dir():
        raise UserError(f"no results in {directory}: there is no such folder; make it with tokbench compare --out")
    try:
        return _read(directory)
    except (ValueError, KeyError, OSError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{directory} is damaged ({reason}): measure anew with tokbench compare --fresh") from error


def _read(directory: Path) -> Results:
    plan, environment = (_json(directory / name) for name in (PLAN, ENVIRONMENT))
    read = read_table(directory).to_dict("records")
    rows = [_row(record) for record in read]
    store = Records(directory)
    timed = {
        row: record
        for row, planned in zip(rows, plan["rows"], strict=True)
        if (record := store.get("latency", planned["keys"].get("latency", "")))
    }
    if any(store.get(NOISE, record["session"]) is None for record in timed.values()):
        raise ValueError("a session's noise is missing")
    table = dict(zip(rows, read, strict=True))
    return Results(
        directory,
        plan,
        environment,
        table,
        {row: np.log(record["base_s"]) - np.log(record["other_s"]) for row, record in timed.items()},
        _answers(directory, table),
    )


def _json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no object")
    return content


def _answers(directory: Path, table: Mapping[Row, Mapping[Hashable, Any]]) -> dict[Row, pd.Series]:
    answered = {row: record for row, record in table.items() if not pd.isna(record["top1"])}
    if not answered:
        return {}
    stored = pd.read_parquet(directory / CORRECTNESS)
    blocks = {_named(dict(zip(ANSWERED, names, strict=True))): block for names, block in _blocks(stored)}
    answers = {row: blocks[_named(record)].set_index("image")["top1"] for row, record in answered.items()}
    for row, record in answered.items():
        if len(answers[row]) != record["images"] or not np.isclose(100 * answers[row].mean(), record["top1"]):
            raise ValueError(f"{CORRECTNESS} is not of the same run as the records")
    return answers


def _blocks(stored: pd.DataFrame) -> Any:
    return stored.groupby(list(ANSWERED), dropna=False, observed=True, sort=False)


def _named(record: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(None if pd.isna(record[name]) else record[name] for name in ANSWERED)


def _row(record: Mapping[Hashable, Any]) -> Row:
    keep, seed = (None if pd.isna(record[name]) else record[name] for name in ("keep", "seed"))
    # A budget's keep is what it was solved to, which a change of the method may move.
    named = not record["schedule"] or takes_keep(record["schedule"])
    texts = ("model", "method", "params", "regime", "site", "schedule", "dtype", "mode")
    return Row(
        **{name: str(record[name]) for name in texts},
        keep=float(keep) if named and keep is not None else None,
        seed=None if seed is None else int(seed),
        batch_size=int(record["batch_size"]),
    )
