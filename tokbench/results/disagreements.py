"""Where several runs have measured the same row and do not have the same exact values.

Exact values with the same key come from the same weights, data, versions, method and code, and must be equal: token
counts and MACs, and the answer to every image. Answers also depend on what a key does not hold (threads, the versions
of what decodes images), so they must be equal where that is the same too. Elsewhere the same row may differ, and the
answers are compared in pairs, image by image. Times are not compared here: they are never exact.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tokbench.errors import UserError
from tokbench.kinds import KINDS
from tokbench.kinds.accuracy import ACCURACY
from tokbench.outcomes import RIGHT, SAME, UNREADABLE
from tokbench.results.conditions import (
    ANSWER_SETTINGS,
    COUNT_SETTINGS,
    UNRECORDED,
    difference_text,
    differing,
    settings_of,
)
from tokbench.results.difference import COLUMNS, MUST_AGREE, Difference, frame_of, named
from tokbench.results.directory import Results
from tokbench.results.plan import PlannedRow
from tokbench.results.table import NOT_MEASURED
from tokbench.rows import RowId
from tokbench.stats.proportions import mcnemar, tango

MACS = "macs"
COUNTS = ("tokens_per_block", "gmacs", "gmacs_method")
"""The columns of what is counted."""

ANSWERS = {"accuracy": "top1", "agreement": "agreement", "knn": "knn"}
"""The kinds with one character for each image, and their columns."""

SUCCESS = {"accuracy": RIGHT, "agreement": SAME, "knn": RIGHT}
"""What counts in these columns."""


@dataclass(frozen=True, eq=False)
class _Found:
    """A row of a run."""

    run: str
    results: Results
    row: PlannedRow


def disagreements(runs: Mapping[str, Results]) -> pd.DataFrame:
    """What must agree and does not: one line for each run, row and column.

    Args:
        runs: The runs by their names.

    Returns:
        The columns `run`, `other_run`, those that identify a row, and the others of `Difference` up to `which`.

    Raises:
        UserError: A run is damaged.
    """
    found = [one for (kind, *_), alike in _must_agree(runs).items() for one in _disagreeing(str(kind), alike)]
    return frame_of(found, MUST_AGREE)


def differences(runs: Mapping[str, Results]) -> pd.DataFrame:
    """What need not agree and does not: each run against the first one that has the same row.

    Args:
        runs: The runs by their names.

    Returns:
        The columns `run`, `other_run`, those that identify a row, and the others of `Difference`.

    Raises:
        UserError: A run is damaged.
    """
    tables = {
        name: dict(zip([row.id for row in results.plan.rows], results.table.to_dict("records"), strict=True))
        for name, results in runs.items()
    }
    found: dict[RowId, list[_Found]] = {}
    for name, results in runs.items():
        for row in results.plan.rows:
            found.setdefault(row.matched_by, []).append(_Found(name, results, row))
    lines = [
        line
        for first, *others in found.values()
        for one in others
        if one.run != first.run
        for line in _compared(one, first, tables[one.run][one.row.id], tables[first.run][first.row.id])
    ]
    return frame_of(lines, COLUMNS)


def common_rows(runs: Mapping[str, Results]) -> list[RowId]:
    """The rows that are in more than one run, in the order of the runs."""
    owners: dict[RowId, set[str]] = {}
    for name, results in runs.items():
        for row in results.plan.rows:
            owners.setdefault(row.matched_by, set()).add(name)
    return [row for row, names in owners.items() if len(names) > 1]


def rows_that_must_agree(runs: Mapping[str, Results]) -> list[RowId]:
    """The rows with an exact value that is of the same conditions in more than one run."""
    rows = (one.row.matched_by for alike in _must_agree(runs).values() for one in alike)
    return list(dict.fromkeys(rows))


# What must agree


def _must_agree(runs: Mapping[str, Results]) -> dict[tuple[Hashable, ...], list[_Found]]:
    """The rows with the same exact measurement, by kind, key, and what it depends on besides."""
    found: dict[tuple[Hashable, ...], dict[str, _Found]] = {}
    for name, results in runs.items():
        for row in results.plan.rows:
            for kind in row.keys.keys() & {MACS, *ANSWERS}:
                own = found.setdefault(_conditions(kind, row, results), {})
                own.setdefault(name, _Found(name, results, row))  # rows of other batch sizes share it
    return {conditions: list(own.values()) for conditions, own in found.items() if len(own) > 1}


def _conditions(kind: str, row: PlannedRow, results: Results) -> tuple[Hashable, ...]:
    """What a measurement depends on: its kind, its key, and what the keys of answers leave out.

    The token counts of an adaptive method depend on the last bits, as the answers do.
    """
    settings = settings_of(results) if kind != MACS or row.adaptive else {}
    return kind, row.keys[kind], *(settings.get(name) for name in ANSWER_SETTINGS)


def _disagreeing(kind: str, alike: Sequence[_Found]) -> Iterator[Difference]:
    """Each run whose values are not those that most runs have; of equally many, those of the first."""
    values = [_counts(one) if kind == MACS else _answers(kind, one) for one in alike]
    if all(value.equals(values[0]) for value in values):
        return
    unlike = _unlike_counts if kind == MACS else _unlike_answers
    support = [sum(not unlike(one, other) for other in values) for one in values]
    usual = support.index(max(support))
    for one, value in zip(alike, values, strict=True):
        if unlike(value, values[usual]):
            yield from _described(kind, one, alike[usual], value, values[usual])


def _described(kind: str, one: _Found, usual: _Found, value: pd.Series, other: pd.Series) -> Iterator[Difference]:
    if kind == MACS:
        row = one.row.id.without("seed", "batch_size", "mode")
        for column in _unlike_counts(value, other):
            yield Difference(one.run, usual.run, row, column, value[column], other[column])
    else:
        row = one.row.id.without("batch_size", "mode")
        images = _unlike_answers(value, other)
        shares = [100 * float((marks[marks != UNREADABLE] == SUCCESS[kind]).mean()) for marks in (value, other)]
        yield Difference(
            one.run, usual.run, row, ANSWERS[kind], shares[0], shares[1], images=len(images), which=named(images)
        )


# What need not agree


def _compared(
    one: _Found, first: _Found, values: Mapping[Hashable, Any], others: Mapping[Hashable, Any]
) -> Iterator[Difference]:
    """The differences between a row in two runs, from the values of the table and from the answers."""
    pair = (one.run, first.run)
    if values["status"] != others["status"] and NOT_MEASURED not in values["reason"] + others["reason"]:
        reason = values["reason"] or others["reason"]
        yield Difference(*pair, one.row.id, "status", values["status"], others["status"], why=reason)
    if _need_not_agree(MACS, one, first):
        row = one.row.id.without("seed", "batch_size", "mode")
        why = _why(one, first, ANSWER_SETTINGS if one.row.adaptive else COUNT_SETTINGS)
        counts, others_counts = _counts(one), _counts(first)
        for column in _unlike_counts(counts, others_counts):
            yield Difference(*pair, row, column, counts[column], others_counts[column], why=why)
    if _need_not_agree(ACCURACY.name, one, first):
        yield from _paired(one, first)


def _need_not_agree(kind: str, one: _Found, other: _Found) -> bool:
    """Whether both have a measurement, each under conditions of its own."""
    known = kind in one.row.keys and kind in other.row.keys
    return known and _conditions(kind, one.row, one.results) != _conditions(kind, other.row, other.results)


def _paired(one: _Found, first: _Found) -> Iterator[Difference]:
    """The difference in top-1 on the images that both have read."""
    marks = pd.concat([_answers(ACCURACY.name, found) for found in (one, first)], axis=1, join="inner")
    read = marks[(marks != UNREADABLE).all(axis=1)] == RIGHT
    now, before = (read[column].to_numpy() for column in read)
    flips = mcnemar(before, now)
    if flips.gained or flips.lost:
        change = tango(flips.gained, flips.lost, len(read))
        yield Difference(
            one.run,
            first.run,
            one.row.id.without("batch_size", "mode"),
            "top1",
            100 * float(now.mean()),
            100 * float(before.mean()),
            flips.gained + flips.lost,
            named(list(read.index[now != before])),
            _why(one, first, ANSWER_SETTINGS),
            flips.gained,
            flips.lost,
            100 * change.estimate,
            100 * change.lo,
            100 * change.hi,
        )


def _why(one: _Found, other: _Found, names: Sequence[str]) -> str:
    return difference_text(one.results, other.results, differing(one.results, other.results, names)) or UNRECORDED


# Values


def _counts(one: _Found) -> pd.Series:
    """The columns of what was counted; empty without a record."""
    kind = KINDS[MACS]
    return pd.Series(kind.fill(one.row, None, one.results), dtype=object).reindex(COUNTS)


def _unlike_counts(one: pd.Series, other: pd.Series) -> list[str]:
    """The columns that both have and in which they differ."""
    return [name for name in COUNTS if pd.notna(one[name]) and pd.notna(other[name]) and one[name] != other[name]]


def _answers(kind: str, one: _Found) -> pd.Series:
    """One character for each image, by its name; unreadable where the answer is missing.

    Raises:
        UserError: The records are of other images than the directory's.
    """
    images = list(one.results.images or {})
    shards = one.results.plan.shards if KINDS[kind].sharded else [range(len(images))]
    keys = one.results.keys_of(KINDS[kind], one.row.keys[kind])
    records = [one.results.read(KINDS[kind], key) for key in keys]
    marks = "".join(
        UNREADABLE * len(shard) if record is None else record.outcomes
        for shard, record in zip(shards, records, strict=True)
    )
    if len(marks) != len(images):
        raise UserError(f"{one.results.directory} is damaged (its images are others than its answers'): use --fresh")
    return pd.Series(list(marks), index=images, dtype=object)


def _unlike_answers(one: pd.Series, other: pd.Series) -> list[str]:
    """The images that both have read and answered differently."""
    marks = pd.concat([one, other], axis=1, join="inner")
    read = (marks != UNREADABLE).all(axis=1)
    return list(marks.index[read & (marks[0] != marks[1])])
