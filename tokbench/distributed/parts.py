"""Parts of a comparison: what one machine of several, or one task of a cluster, measures of it.

A part has some of the rows with some of their measurements, and some stretches of the images. The code that carries a
plan out carries out a part of it in the same way, so its records are those of a run that does everything.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from tokbench.compare.accuracy import shard_key, shards
from tokbench.compare.prepare import Prepared, Row
from tokbench.errors import UserError
from tokbench.results.store import Records

ACCURACY = "accuracy"
RUNNING = ("latency", "memory")  # what must be measured alone on its device


@dataclass(frozen=True, eq=False)
class Part:
    """What is measured together.

    Attributes:
        rows: With the keys of those measurements only that are the part's.
        spans: The stretches of the images that accuracies are measured on, one following the other.
    """

    rows: tuple[Row, ...]
    spans: tuple[range, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its measurements."""
        return tuple(dict.fromkeys(kind for row in self.rows for kind in row.keys))

    @property
    def models(self) -> tuple[str, ...]:
        """The names of its models."""
        return tuple(dict.fromkeys(row.cell.model for row in self.rows))

    def places(self) -> list[tuple[str, str]]:
        """The kinds and keys of the records that it makes."""
        wanted = dict.fromkeys(place for row in self.rows for place in row.keys.items())
        return [(kind, part) for kind, key in wanted for part in self._parts(kind, key)]

    def of(self, prepared: Prepared) -> Prepared:
        """A plan with nothing in it but this."""
        models = {name: model for name, model in prepared.models.items() if name in self.models}
        return replace(prepared, models=models, rows=self.rows)

    def _parts(self, kind: str, key: str) -> list[str]:
        return [shard_key(key, span.start) for span in self.spans] if kind == ACCURACY else [key]


def divide(prepared: Prepared, store: Records, pieces: int) -> list[Part]:
    """Cut what is still to be measured into parts that can run apart.

    A session of paired times is never cut. Accuracies are cut by images, for all rows share a decoded image.

    Args:
        prepared: The plan.
        store: What has been measured of it.
        pieces: About how many parts the accuracies are cut into.

    Returns:
        Timed parts first: they need a device for themselves, which is hard to get later.
    """
    rows = [row for row in prepared.rows if row.keys and not row.failed]
    sessions = dict.fromkeys((row.cell.model, row.cell.batch_size, row.cell.mode) for row in rows)
    timed = [
        [row for row in rows if (row.cell.model, row.cell.batch_size, row.cell.mode) == session] for session in sessions
    ]
    counted = [[row for row in rows if row.cell.model == name] for name in prepared.models]
    others = {kind for row in rows for kind in row.keys} - {*RUNNING, ACCURACY}
    parts = [
        *(Part(_with(own, RUNNING)) for own in timed),
        *(Part(_with(own, others)) for own in counted),
        *_stretches(Part(_with(rows, {ACCURACY}), _spans(prepared)), store, pieces),
    ]
    return [part for part in parts if _left(part, store)]


def share(prepared: Prepared, text: str) -> Part:
    """A machine's share of a comparison that several measure without knowing of each other.

    The images are dealt out. What has nothing to do with them, or needs few, is the first share's.

    Args:
        prepared: The plan.
        text: `2/4`: the second of four shares.

    Raises:
        UserError: The text says something else.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"part '{text}' is none: --part 2/4 measures the second of four parts")
    spans = _spans(prepared)
    own = range(len(spans) * (int(number) - 1) // int(count), len(spans) * int(number) // int(count))
    kinds = {kind for row in prepared.rows for kind in row.keys} if int(number) == 1 else {ACCURACY}
    return Part(_with([row for row in prepared.rows if not row.failed], kinds), spans[own.start : own.stop])


def _with(rows: Sequence[Row], kinds: Collection[str]) -> tuple[Row, ...]:
    """The rows that have such measurements, with no others."""
    own = (replace(row, keys={kind: key for kind, key in row.keys.items() if kind in kinds}) for row in rows)
    return tuple(row for row in own if row.keys)


def _spans(prepared: Prepared) -> tuple[range, ...]:
    return tuple(shards(len(prepared.images), prepared.suite.accuracy_batch)) if prepared.images is not None else ()


def _left(part: Part, store: Records) -> bool:
    return any(store.get(*place) is None for place in part.places())


def _stretches(whole: Part, store: Records, pieces: int) -> Iterator[Part]:
    """The stretches that have something left, those that follow one another together."""
    left = [number for number, span in enumerate(whole.spans) if _left(Part(whole.rows, (span,)), store)]
    most = math.ceil(len(left) / pieces)
    start = 0
    for end in range(1, len(left) + 1):
        if end == len(left) or left[end] != left[end - 1] + 1 or end - start == most:
            yield Part(whole.rows, tuple(whole.spans[number] for number in left[start:end]))
            start = end
