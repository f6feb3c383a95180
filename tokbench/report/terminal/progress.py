"""What a run has measured so far, row by row, while it goes on."""

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
from tokbench.report.labels import labels, word
from tokbench.results.answers import RIGHT
from tokbench.results.store import Records

# What tells the rows of one method apart, and its head.
SETTINGS = {"keep": "keep", "batch_size": "batch", "mode": "mode", "seed": "seed"}
LONGEST = 200  # characters of a name or a reason: more than a terminal shows on one line


class State(StrEnum):
    """How far a row has come."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    WAITING = "waiting"


class Measurement:
    """A measurement of the plan as far as it has come; no record of it is read twice.

    Attributes:
        kind: Of its records.
        numbers: What they say, by the table's column; `top1` is that of the images seen so far.
        reason: Why it failed in this run, on one line. What failed in an earlier one is tried again, and waits.
    """

    def __init__(self, kind: str, parts: Sequence[str], store: Records) -> None:
        """Read what was measured before.

        Args:
            kind: Of its records.
            parts: Their keys in the order in which they are written: one, or one for each stretch of the images.
            store: Where they are.
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
        """Parts that have no record."""
        return len(self._parts) - self._done

    @property
    def made(self) -> int:
        """Parts that this run has measured, or tried to."""
        return self._done - self._before + bool(self.reason)

    def read(self, store: Records) -> None:
        """Read what has come in."""
        while self.missing and (record := store.get(self.kind, self._parts[self._done])) is not None:
            self._done += 1
            self._take(record)
        failure = self._failure(store)
        self.reason = "" if failure is None or failure is self._earlier else _cut(failure["reason"])

    def _failure(self, store: Records) -> dict[str, Any] | None:
        return store.get(FAILED, f"{self.kind}/{self._parts[self._done]}") if self.missing else None

    def _take(self, record: dict[str, Any]) -> None:
        match self.kind:
            case "macs":
                self.numbers["gmacs"] = record["total"] / 1e9
            case "latency":
                base, other = np.array([record["base_s"], record["other_s"]])
                self.numbers["latency_ms"] = 1e3 * float(np.median(other))
                self.numbers["speedup"] = math.exp(np.median(np.log(base) - np.log(other)))
            case "accuracy":
                said = record["outcomes"]
                self._right += said.count(RIGHT)
                self._seen += len(said) - said.count(UNREADABLE)
                if self._seen:
                    self.numbers["top1"] = 100 * self._right / self._seen


@dataclass(frozen=True)
class Line:
    """A planned row.

    Attributes:
        model: Its model.
        label: Its method; the model's name where it is the plain one.
        settings: The settings in which rows differ, by their heads.
        measurements: Those that are made of it, by kind; other rows may share them.
        skipped: Why it is not measured.
        failed: Why it cannot be.
    """

    model: str
    label: str
    settings: Mapping[str, str]
    measurements: Mapping[str, Measurement]
    skipped: str
    failed: str

    @property
    def reason(self) -> str:
        """Why numbers are missing that will not come; empty where they will."""
        reasons = (measurement.reason for measurement in self.measurements.values())
        return self.skipped or self.failed or next(filter(None, reasons), "")

    def state(self, running: Measurement | None) -> State:
        """How far it has come, while one measurement is being made."""
        if running in self.measurements.values():
            return State.RUNNING
        if self.reason:
            return State.SKIPPED if self.skipped else State.FAILED
        missing = any(measurement.missing for measurement in self.measurements.values())
        return State.WAITING if missing else State.DONE


def planned(plan: Mapping[str, Any], store: Records) -> dict[tuple[str, str], Measurement]:
    """All that a plan wants measured, by kind and key.

    Args:
        plan: As `tokbench.results.table.read_plan` gives it.
        store: What has been measured of it.
    """
    images = plan["images"]
    spans = shards(images["count"], plan["suite"]["accuracy_batch"]) if images else []
    wanted = dict.fromkeys(place for row in plan["rows"] if not row["failed"] for place in row["keys"].items())

    def parts(kind: str, key: str) -> list[str]:
        return [shard_key(key, span.start) for span in spans] if kind == "accuracy" else [key]

    return {(kind, key): Measurement(kind, parts(kind, key), store) for kind, key in wanted}


def lines(plan: Mapping[str, Any], measurements: Mapping[tuple[str, str], Measurement]) -> list[Line]:
    """A plan's rows, model by model.

    Args:
        plan: As `tokbench.results.table.read_plan` gives it.
        measurements: What is measured of them; see `planned`.
    """
    table = pd.DataFrame(plan["rows"])
    told = [name for name in SETTINGS if table[name].map(word).nunique() > 1]
    models = table.groupby("model", sort=False)
    return [line for _, rows in models for line in _of_model(rows, told, measurements)]


def _of_model(
    rows: pd.DataFrame, told: Iterable[str], measurements: Mapping[tuple[str, str], Measurement]
) -> Iterator[Line]:
    for label, row in zip(labels(rows), rows.to_dict("records"), strict=True):
        model = _cut(row["model"])
        plain = row["method"] == PLAIN and not row["params"]
        keys = {} if row["failed"] else row["keys"]
        yield Line(
            model=model,
            label=model if plain else _cut(label),
            settings={SETTINGS[name]: _cut(word(row[name])) for name in told},
            measurements={kind: measurements[kind, key] for kind, key in keys.items()},
            skipped=_cut(row["skipped"]),
            failed=_cut(row["failed"]),
        )


def _cut(text: str) -> str:
    """A text on one line, and no more of it than a terminal shows."""
    shown = printable(text)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"
