"""What a run has measured so far, row by row, while it is running."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from tokbench.compare.accuracy import shard_key, shards
from tokbench.compare.records import FAILED
from tokbench.measure.accuracy import UNREADABLE
from tokbench.names import PLAIN
from tokbench.notation import printable
from tokbench.report.labels import cell_text, labels
from tokbench.results.answers import RIGHT
from tokbench.results.store import Records

# The settings in which the rows of a method may differ, with their headings.
SETTING_HEADINGS = {"keep": "keep", "batch_size": "batch", "mode": "mode", "seed": "seed"}
MAX_TEXT = 200  # characters of a name or a reason: more than fit on one line of a terminal


class State(StrEnum):
    """The progress of a row."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    WAITING = "waiting"


class Measurement:
    """The progress of one planned measurement. Each of its records is read only once.

    Attributes:
        kind: The kind of its records.
        numbers: The values so far, by the table's column; `top1` is over the images classified so far.
        reason: Why it failed in this run, on one line. A failure of an earlier run counts as waiting, as it is retried.
    """

    def __init__(self, kind: str, parts: Sequence[str], store: Records) -> None:
        """Read the records of earlier runs.

        Args:
            kind: The kind of its records.
            parts: Their keys in the order of writing: one, or one for each shard of the images.
            store: The results directory's records.
        """
        self.kind = kind
        self.numbers: dict[str, float] = {}
        self._parts = parts
        self._done = self._right = self._seen = 0
        self._earlier: dict[str, Any] | None = None
        self.read(store)
        self._before, self._earlier, self.reason = self._done, self._failure(store), ""

    @property
    def missing(self) -> int:
        """The number of parts without a record."""
        return len(self._parts) - self._done

    @property
    def made(self) -> int:
        """The number of parts that this run has measured or failed to measure."""
        return self._done - self._before + bool(self.reason)

    def read(self, store: Records) -> None:
        """Read new records."""
        while self.missing and (record := store.get(self.kind, self._parts[self._done])) is not None:
            self._done += 1
            self._update_numbers(record)
        failure = self._failure(store)
        self.reason = "" if failure is None or failure is self._earlier else _cut(failure["reason"])

    def _failure(self, store: Records) -> dict[str, Any] | None:
        return store.get(FAILED, f"{self.kind}/{self._parts[self._done]}") if self.missing else None

    def _update_numbers(self, record: dict[str, Any]) -> None:
        match self.kind:
            case "macs":
                self.numbers["gmacs"] = record["total"] / 1e9
            case "latency":
                base, other = np.array([record["base_s"], record["other_s"]])
                self.numbers["latency_ms"] = 1e3 * float(np.median(other))
                self.numbers["speedup"] = math.exp(np.median(np.log(base) - np.log(other)))
            case "accuracy":
                outcomes = record["outcomes"]
                self._right += outcomes.count(RIGHT)
                self._seen += len(outcomes) - outcomes.count(UNREADABLE)
                if self._seen:
                    self.numbers["top1"] = 100 * self._right / self._seen


@dataclass(frozen=True)
class RowProgress:
    """The progress of a planned row.

    Attributes:
        model: Its model.
        label: Its method; for the plain model the model's name.
        settings: The settings in which rows differ, by heading.
        measurements: Its measurements by kind; other rows may share them.
        skipped: Why it is not to be measured; empty if it is.
        failed: Why it cannot be measured; empty if it can.
    """

    model: str
    label: str
    settings: Mapping[str, str]
    measurements: Mapping[str, Measurement]
    skipped: str
    failed: str

    @property
    def reason(self) -> str:
        """Why numbers will stay missing; empty if none will."""
        reasons = (measurement.reason for measurement in self.measurements.values())
        return self.skipped or self.failed or next(filter(None, reasons), "")

    def state(self, running: Measurement | None) -> State:
        """Its state, given the measurement that is running now."""
        if running in self.measurements.values():
            return State.RUNNING
        if self.reason:
            return State.SKIPPED if self.skipped else State.FAILED
        missing = any(measurement.missing for measurement in self.measurements.values())
        return State.WAITING if missing else State.DONE


def planned_measurements(plan: Mapping[str, Any], store: Records) -> dict[tuple[str, str], Measurement]:
    """All measurements of a plan, by kind and key.

    Args:
        plan: What `tokbench.results.table.read_plan` gives.
        store: The records so far.
    """
    images = plan["images"]
    spans = shards(images["count"], plan["suite"]["accuracy_batch"]) if images else []
    wanted = dict.fromkeys(item for row in plan["rows"] if not row["failed"] for item in row["keys"].items())

    def parts(kind: str, key: str) -> list[str]:
        return [shard_key(key, span.start) for span in spans] if kind == "accuracy" else [key]

    return {(kind, key): Measurement(kind, parts(kind, key), store) for kind, key in wanted}


def rows_in_progress(plan: Mapping[str, Any], measurements: Mapping[tuple[str, str], Measurement]) -> list[RowProgress]:
    """A plan's rows, model by model.

    Args:
        plan: What `tokbench.results.table.read_plan` gives.
        measurements: What `planned_measurements` gives.
    """
    table = pd.DataFrame(plan["rows"])
    varying = [name for name in SETTING_HEADINGS if table[name].map(cell_text).nunique() > 1]
    models = table.groupby("model", sort=False)
    return [row for _, rows in models for row in _model_rows(rows, varying, measurements)]


def _model_rows(
    rows: pd.DataFrame, varying: Iterable[str], measurements: Mapping[tuple[str, str], Measurement]
) -> Iterator[RowProgress]:
    for label, row in zip(labels(rows), rows.to_dict("records"), strict=True):
        model = _cut(row["model"])
        plain = row["method"] == PLAIN and not row["params"]
        keys = {} if row["failed"] else row["keys"]
        yield RowProgress(
            model=model,
            label=model if plain else _cut(label),
            settings={SETTING_HEADINGS[name]: _cut(cell_text(row[name])) for name in varying},
            measurements={kind: measurements[kind, key] for kind, key in keys.items()},
            skipped=_cut(row["skipped"]),
            failed=_cut(row["failed"]),
        )


def _cut(text: str) -> str:
    """A text on one line, cut to `MAX_TEXT` characters."""
    shown = printable(text)
    return shown if len(shown) <= MAX_TEXT else f"{shown[: MAX_TEXT - 1]}…"
