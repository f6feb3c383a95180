"""Parts of a comparison: what one of several machines, or one task of a cluster, measures.

A part has some of the rows with some of their measurements, and some shards of the images. The code that runs a plan
runs a part in the same way, so its records are the same as those of a run that measures everything.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from tokbench.errors import UserError
from tokbench.kinds import KINDS
from tokbench.outcomes import shard_key, shards
from tokbench.results.store import Place, Records
from tokbench.run.prepare import Prepared, Row


@dataclass(frozen=True, eq=False)
class Part:
    """What is measured together.

    Attributes:
        rows: With the keys of only those measurements that belong to the part.
        shards: The shards of the images that accuracies are measured on, one following the other.
    """

    rows: tuple[Row, ...]
    shards: tuple[range, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its measurements."""
        return tuple(dict.fromkeys(kind for row in self.rows for kind in row.keys))

    @property
    def exclusive(self) -> bool:
        """Whether it needs the device for itself."""
        return any(KINDS[kind].exclusive for kind in self.kinds)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of its models."""
        return tuple(dict.fromkeys(row.cell.model for row in self.rows))

    def places(self) -> list[Place]:
        """The kinds and keys of the records that it writes."""
        wanted = dict.fromkeys(place for row in self.rows for place in row.keys.items())
        return [(kind, part) for kind, key in wanted for part in self._parts(kind, key)]

    def of(self, prepared: Prepared) -> Prepared:
        """A plan with only this part in it."""
        models = {name: model for name, model in prepared.models.items() if name in self.models}
        return replace(prepared, models=models, rows=self.rows)

    def _parts(self, kind: str, key: str) -> list[str]:
        return [shard_key(key, shard) for shard in self.shards] if KINDS[kind].sharded else [key]


def divide(prepared: Prepared, records: Records, pieces: int) -> list[Part]:
    """Cut what is still to be measured into parts that can run independently.

    A session of paired times is never cut. Accuracies are cut by images, because all rows share a decoded image.

    Args:
        prepared: The plan.
        records: What has been measured of it.
        pieces: Roughly how many parts the accuracies are cut into.

    Returns:
        Timed parts first: they need a device for themselves, which is hard to get later.
    """
    rows = prepared.measured_rows
    sessions = dict.fromkeys((row.cell.model, row.cell.batch_size, row.cell.mode) for row in rows)
    timed = [
        [row for row in rows if (row.cell.model, row.cell.batch_size, row.cell.mode) == session] for session in sessions
    ]
    counted = [[row for row in rows if row.cell.model == name] for name in prepared.models]
    exclusive = {name for name, kind in KINDS.items() if kind.exclusive}
    sharded = {name for name, kind in KINDS.items() if kind.sharded}
    parts = [
        *(Part(_with(own, exclusive)) for own in timed),
        *(Part(_with(own, KINDS.keys() - exclusive - sharded)) for own in counted),
        *_runs(Part(_with(rows, sharded), _shards(prepared)), records, pieces),
    ]
    return [part for part in parts if _incomplete(part, records)]


def share(prepared: Prepared, text: str) -> Part:
    """One machine's share of a comparison that several independent machines measure.

    The images are divided among the shares. The first share measures everything else.

    Args:
        prepared: The plan.
        text: `2/4`: the second of four shares.

    Raises:
        UserError: The text has another form.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"invalid --part '{text}': expected i/n, as in 2/4 for the second of four parts")
    every = _shards(prepared)
    own = range(len(every) * (int(number) - 1) // int(count), len(every) * int(number) // int(count))
    kinds = {name for name, kind in KINDS.items() if kind.sharded or int(number) == 1}
    return Part(_with([row for row in prepared.rows if not row.failed], kinds), every[own.start : own.stop])


def _with(rows: Sequence[Row], kinds: Collection[str]) -> tuple[Row, ...]:
    """The rows that have such measurements, without their others."""
    own = (replace(row, keys={kind: key for kind, key in row.keys.items() if kind in kinds}) for row in rows)
    return tuple(row for row in own if row.keys)


def _shards(prepared: Prepared) -> tuple[range, ...]:
    return tuple(shards(len(prepared.images), prepared.suite.accuracy_batch)) if prepared.images is not None else ()


def _incomplete(part: Part, records: Records) -> bool:
    return any(records.get(*place) is None for place in part.places())


def _runs(whole: Part, records: Records, pieces: int) -> Iterator[Part]:
    """The shards that are incomplete, in runs of consecutive ones."""
    left = [number for number, shard in enumerate(whole.shards) if _incomplete(Part(whole.rows, (shard,)), records)]
    most = math.ceil(len(left) / pieces)
    start = 0
    for end in range(1, len(left) + 1):
        if end == len(left) or left[end] != left[end - 1] + 1 or end - start == most:
            yield Part(whole.rows, tuple(whole.shards[number] for number in left[start:end]))
            start = end
