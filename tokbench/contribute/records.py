"""The records: all that were planned and no others, each possible in itself and in line with the others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from tokbench.contribute.planned import described
from tokbench.contribute.problem import Name, Problem
from tokbench.errors import UserError
from tokbench.kinds import KINDS
from tokbench.kinds.accuracy import ACCURACY
from tokbench.kinds.agreement import AGREEMENT
from tokbench.kinds.latency import LATENCY, NOISE
from tokbench.kinds.macs import MacsRecord
from tokbench.outcomes import ANOTHER, NO_CLASSES, RIGHT, SAME, TOP, UNREADABLE, WRONG, marks_of
from tokbench.results import Results
from tokbench.results.store import FAILED, RECORDS, UNREADABLE_IMAGE, Place

ANSWERS = {
    ACCURACY.name: {*map(str, range(TOP)), WRONG, UNREADABLE},
    AGREEMENT.name: {SAME, ANOTHER, NO_CLASSES, UNREADABLE},
}

MAY_CONTRADICT = 0.01
"""The share of the images whose answers may contradict each other where arithmetic is not exactly repeatable."""

ROUNDING = 1e-6  # of sums over images in single precision

Json = dict[str, Any]


def check_records(results: Results, records: Mapping[Place, Json]) -> Iterator[Problem]:
    """Check the records against the plan, and each in itself.

    Args:
        results: The contributed results.
        records: All of their records.
    """
    content = (results.directory / RECORDS).read_bytes()
    cut = bool(content) and not content.endswith(b"\n")
    if results.damaged_lines or cut:
        yield Problem(
            Name.DAMAGED_RECORD,
            f"{RECORDS}: {results.damaged_lines + cut} lines are damaged or were changed after they were written",
        )
    impossible = list(_impossible(results, records))
    yield from impossible
    if not impossible:  # others cannot be read
        yield from _unplanned(results, records)
        yield from _missing(results)


def _unplanned(results: Results, records: Mapping[Place, Json]) -> Iterator[Problem]:
    planned = planned_places(results)
    for kind, key in records:
        if not has_place((kind, key), planned, results):
            yield Problem(Name.UNPLANNED_RECORD, f"{RECORDS}: {kind} {key} is of no row of the plan")


def planned_places(results: Results) -> set[Place]:
    """Kind and key of every record that the plan's rows consist of, with the noise floors of their sessions."""
    places = {place for row in results.plan.rows for place in results.wanted(row)}
    timed = (results.record(LATENCY, row) for row in results.plan.rows)
    return places | {(NOISE.name, record.session) for record in timed if record is not None}


def has_place(place: Place, planned: Collection[Place], results: Results) -> bool:
    """Whether a record belongs to the results, and not to earlier ones in the same directory.

    Args:
        place: Its kind and key.
        planned: `planned_places` of the results.
        results: The results.
    """
    kind, key = place
    if kind == FAILED:
        failed, _, of = key.partition("/")
        return failed == NOISE.name or (failed, of) in planned
    if kind == UNREADABLE_IMAGE:
        return key.partition("/")[2] in (results.images or {})
    return place in planned


def _missing(results: Results) -> Iterator[Problem]:
    """Rows without all of their measurements, or a reason for each that there is not."""
    for row in results.plan.rows:
        if row.skipped or row.failed:
            continue
        for kind, key in results.missing(row):
            if results.failure(kind, key) is None:
                yield Problem(Name.MISSING_RECORD, f"{described(row)} has no {kind}, and nothing says why ({key})")
    for row in results.plan.rows:
        record = results.record(LATENCY, row)
        if record is not None and results.read(NOISE, record.session) is None:
            yield Problem(
                Name.MISSING_RECORD, f"{described(row)}: the noise floor of session {record.session} is missing"
            )
    unread = set(results.unreadable)
    names = np.array(list(results.images or {}), dtype=object)
    for row in results.plan.rows:
        outcomes = results.outcomes(row)
        if outcomes is not None and len(outcomes) == len(names):
            left_out = set(names[marks_of(outcomes) == UNREADABLE]) - unread
            if left_out:
                text = f"{described(row)}: nothing says why {len(left_out)} images were not read ({min(left_out)})"
                yield Problem(Name.MISSING_RECORD, text)


def _impossible(results: Results, records: Mapping[Place, Json]) -> Iterator[Problem]:
    """Records that no measurement could have left."""
    for kind, key in records:
        if kind in KINDS or kind == NOISE.name:
            try:
                record = results.read(NOISE if kind == NOISE.name else KINDS[kind], key)
                wrong = _wrong(kind, record, key, results)
            except UserError as error:
                wrong = str(error)
            if wrong:
                yield Problem(Name.IMPOSSIBLE_RECORD, f"{RECORDS}: {kind} {key}: {wrong}")


def _wrong(kind: str, record: Any, key: str, results: Results) -> str:
    """What is impossible about a record; empty if nothing is."""
    if kind in ANSWERS:
        shard = next((shard for shard in results.plan.shards if key.endswith(f"/{shard.start}")), range(0))
        if len(record.outcomes) != len(shard):
            return f"{len(record.outcomes)} answers to {len(shard)} images"
        if strange := set(record.outcomes) - ANSWERS[kind]:
            return f"'{min(strange)}' is no answer"
        if kind == AGREEMENT.name and not abs(record.cosine) <= len(shard) * (1 + ROUNDING):
            return f"{record.cosine} is the sum of the cosines of {len(shard)} images"
    if kind == "macs":
        return _wrong_counts(record)
    if kind == "memory" and not record.peak_mib > 0:
        return f"{record.peak_mib} MiB"
    return ""


def _wrong_counts(record: MacsRecord) -> str:
    if not 0 <= record.method <= record.total:
        return f"{record.method} of {record.total} MACs are the method's"
    if not record.tokens or min(record.tokens) < 0:
        return f"tokens {record.tokens}"
    if record.batches:
        weights = [len(batch.ledger["images"]) for batch in record.batches]
        mean = round(np.average([batch.total for batch in record.batches], weights=weights))
        if mean != record.total:
            return f"{record.total} MACs, and the mean over its batches is {mean}"
    return ""


def check_answers(results: Results) -> Iterator[Problem]:
    """Check answers against agreement: where a row gives the plain model's answer, both are right or neither is.

    Args:
        results: The contributed results.
    """
    exact = results.plan.device == "cpu" and results.plan.suite.dtype == "fp32"
    for row in results.plan.rows:
        plain = results.plan.plain_of(row)
        agreement = "".join(record.outcomes for record in results.shards_of(AGREEMENT, row))
        own, other = results.outcomes(row), None if plain is None else results.outcomes(plain)
        if not agreement or own is None or other is None or not len(agreement) == len(own) == len(other):
            continue
        contradicting = _contradicting(agreement, own, other)
        if contradicting > (0 if exact else MAY_CONTRADICT * len(own)):
            yield Problem(
                Name.CONTRADICTING_ANSWERS,
                f"{described(row)}: accuracy and agreement contradict each other on {contradicting} images",
            )


def _contradicting(agreement: str, own: str, plain: str) -> int:
    """Images with the plain model's answer where one of the two is right, and with another answer where both are."""
    same, another = (marks_of(agreement) == mark for mark in (SAME, ANOTHER))
    right, plain_right = (marks_of(outcomes) == RIGHT for outcomes in (own, plain))
    return int(np.sum(same & (right != plain_right)) + np.sum(another & right & plain_right))
