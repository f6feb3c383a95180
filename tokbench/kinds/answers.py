"""What the kinds have in common that are read off a model's answers to every image: accuracy and agreement."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tokbench.kinds.base import Conditions, Kind, Pace
from tokbench.outcomes import UNREADABLE, shard_key

if TYPE_CHECKING:
    from tokbench.measure.answers import Answers
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row
    from tokbench.vit.backbone import DownsampledViT

R = TypeVar("R")


class AnswerKind(Kind[R]):
    """A kind whose records have one character for each image of a shard, in the field `outcomes`.

    One pass over the images fills the records of all these kinds. It is made by the first of them that a row wants.
    """

    sharded = True

    @abstractmethod
    def record_of(self, answers: Answers) -> R:
        """This kind's record, from a model's answers to a shard."""

    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        """What runs, where, on which images in which batches, and the seed."""
        return {
            **conditions.method,
            **conditions.device,
            "data": conditions.data,
            "batch": conditions.suite.accuracy_batch,
            "seed": conditions.seed,
        }

    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """Each image is decoded once for each size and classified by every row."""
        own = [row for row in rows if _answer_kinds(row)[0] is self]
        sizes = {row.cell.variant.img_size for row in own}
        return pace.images * (len(sizes) * pace.decode_s + len(own) * pace.image_s)

    def measure(self, rows: Mapping[str, Row], bench: Bench) -> None:
        """Classify all images with all rows, shard by shard."""
        own = {key: row for key, row in rows.items() if _answer_kinds(row)[0] is self}
        if bench.images is None or not own:
            return
        from tokbench.measure.answers import classify

        lost = bench.lost_images.try_again()
        bench.lost_images.check()
        missing = {
            (key, shard): kinds
            for shard in bench.shards
            for key, row in own.items()
            if (kinds := _open_kinds(row, shard, lost, bench))
        }
        todo = {shard: [key for key in own if (key, shard) in missing] for shard in bench.shards}
        models = self._build(own, todo, bench)
        todo = {shard: [key for key in keys if key in models] for shard, keys in todo.items()}
        if not models:
            return
        bench.observer.planned(self.name, sum(len(keys) for keys in todo.values()))
        compared = {key for (key, _), kinds in missing.items() if any(kind.compares_answers for kind in kinds)}
        plain = {key: bench.plain_model(own[key]) for key in compared if key in models}

        def attempt(key: str, shard: range, evaluate: Callable[[], Answers]) -> bool:
            bench.observer.measuring(self.name, key)
            return _record(missing[key, shard], own[key], shard, evaluate, bench)

        for progress in classify(models, bench.images, todo, bench.loading(), attempt, plain):
            for image in progress.unreadable:
                bench.lost_images.add(image)
            bench.observer.measured(self.name, progress.count)

    def _build(
        self, rows: Mapping[str, Row], todo: Mapping[range, Sequence[str]], bench: Bench
    ) -> dict[str, DownsampledViT]:
        """The models of the rows that lack a shard; not those that cannot be built."""
        models: dict[str, DownsampledViT] = {}
        for key, row in rows.items():
            missing = [shard_key(key, shard) for shard, keys in todo.items() if key in keys]
            model = bench.try_build(self, missing[0], row) if missing else None
            if model is not None:
                models[key] = model
        return models


def _answer_kinds(row: Row) -> list[AnswerKind[Any]]:
    """The kinds of this sort that a row wants."""
    from tokbench.kinds import KINDS

    return [kind for name, kind in KINDS.items() if name in row.keys and isinstance(kind, AnswerKind)]


def _open_kinds(row: Row, shard: range, lost: Collection[int], bench: Bench) -> list[AnswerKind[Any]]:
    """The kinds that have no record of a shard yet, or lack the answers to images that can be read by now."""
    found = []
    for kind in _answer_kinds(row):
        key = shard_key(row.keys[kind.name], shard)
        outcomes = (bench.records.get(kind.name, key) or {}).get("outcomes", "")
        readable = any(mark == UNREADABLE and shard[place] not in lost for place, mark in enumerate(outcomes))
        if readable or bench.is_missing(kind, key):
            found.append(kind)
    return found


def _record(
    kinds: Sequence[AnswerKind[Any]], row: Row, shard: range, evaluate: Callable[[], Answers], bench: Bench
) -> bool:
    """Write the records of a shard, or why there are none; says whether there are."""
    first, *others = ((kind, shard_key(row.keys[kind.name], shard)) for kind in kinds)
    answers: list[Answers] = []

    def measure() -> Any:
        answers.append(evaluate())
        return first[0].record_of(answers[0])

    done = bench.attempt(*first, measure)
    for kind, key in others:
        if done:
            bench.add(kind, key, kind.record_of(answers[0]))
        else:
            bench.pass_on(kind, key, *first)
    return done
