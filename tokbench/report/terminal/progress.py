"""What a run has measured so far, row by row, while it is running."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import pandas as pd

from tokbench.errors import printable
from tokbench.kinds import KINDS
from tokbench.kinds.base import Kind
from tokbench.report.labels import cell_text, labels
from tokbench.results import PlannedRow, Results
from tokbench.results.store import SKIPPED

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
        kind: Its kind.
        numbers: The values so far, by the table's column; `top1` is over the images classified so far.
        reason: Why it failed or was skipped in this run, on one line. What an earlier run failed to measure counts as
            waiting, as it is retried.
        skipped: Whether it was skipped.
    """

    def __init__(self, kind: Kind[Any], key: str, results: Results) -> None:
        """Read the records of earlier runs.

        Args:
            kind: Its kind.
            key: Its key.
            results: The results directory.
        """
        self.kind = kind
        self.numbers: dict[str, float] = {}
        self._keys = results.keys_of(kind, key)
        self._records: list[Any] = []
        self._earlier: Mapping[str, Any] | None = None
        self.read(results)
        self._before, self._earlier, self.reason = len(self._records), self._failure(results), ""
        self.skipped = False

    @property
    def missing(self) -> int:
        """The number of parts without a record."""
        return len(self._keys) - len(self._records)

    @property
    def made(self) -> int:
        """The number of parts that this run has measured or failed to measure."""
        return len(self._records) - self._before + bool(self.reason)

    def read(self, results: Results) -> None:
        """Read new records."""
        known = len(self._records)
        while self.missing and (record := results.read(self.kind, self._keys[len(self._records)])) is not None:
            self._records.append(record)
        if len(self._records) > known:
            self.numbers = self.kind.live(self._records)
        failure = self._failure(results)
        new = None if failure is self._earlier else failure
        self.reason = "" if new is None else _cut(new["reason"])
        self.skipped = new is not None and bool(new.get(SKIPPED))

    def _failure(self, results: Results) -> Mapping[str, Any] | None:
        return results.failure(self.kind.name, self._keys[len(self._records)]) if self.missing else None


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
        """Why it is skipped or has failed; empty if it is neither, though single measurements may be skipped."""
        every = self.measurements.values()
        reasons = (one.reason for one in every if self.is_skipped or not one.skipped)
        return self.skipped or self.failed or next(filter(None, reasons), "")

    @property
    def is_skipped(self) -> bool:
        """Whether it is not to be measured, or each of its measurements was skipped."""
        every = self.measurements.values()
        return bool(self.skipped or (every and all(one.skipped for one in every)))

    def state(self, running: Measurement | None) -> State:
        """Its state, given the measurement that is running now."""
        if running in self.measurements.values():
            return State.RUNNING
        if self.reason:
            return State.SKIPPED if self.is_skipped else State.FAILED
        missing = any(one.missing and not one.skipped for one in self.measurements.values())
        return State.WAITING if missing else State.DONE


def planned_measurements(results: Results) -> dict[tuple[str, str], Measurement]:
    """All planned measurements, by kind and key."""
    known = [(kind, key) for kind, key in results.plan.measurements() if kind in KINDS]
    return {(kind, key): Measurement(KINDS[kind], key, results) for kind, key in known}


def rows_in_progress(
    plan: Sequence[PlannedRow], measurements: Mapping[tuple[str, str], Measurement]
) -> list[RowProgress]:
    """The planned rows, model by model.

    Args:
        plan: The rows.
        measurements: What `planned_measurements` gives.
    """
    table = pd.DataFrame([asdict(row.id) for row in plan])
    varying = [name for name in SETTING_HEADINGS if table[name].map(cell_text).nunique() > 1]
    models = table.groupby("model", sort=False)
    return [row for _, ids in models for row in _model_rows(ids, plan, varying, measurements)]


def _model_rows(
    ids: pd.DataFrame,
    plan: Sequence[PlannedRow],
    varying: Iterable[str],
    measurements: Mapping[tuple[str, str], Measurement],
) -> Iterator[RowProgress]:
    for label, row in zip(labels(ids), (plan[number] for number in ids.index), strict=True):
        model = _cut(row.id.model)
        keys = {} if row.failed else row.keys
        yield RowProgress(
            model=model,
            label=model if row.is_plain else _cut(label),
            settings={SETTING_HEADINGS[name]: _cut(cell_text(getattr(row.id, name))) for name in varying},
            measurements={kind: measurements[kind, key] for kind, key in keys.items() if kind in KINDS},
            skipped=_cut(row.skipped),
            failed=_cut(row.failed),
        )


def _cut(text: str) -> str:
    """A text on one line, cut to `MAX_TEXT` characters."""
    shown = printable(text)
    return shown if len(shown) <= MAX_TEXT else f"{shown[: MAX_TEXT - 1]}…"
