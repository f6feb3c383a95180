"""What a kind of measurement needs while it measures: models, images, and where to write records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import ValidationError
from safetensors.torch import load
from torch import Tensor

from tokbench.data.loading import Batch
from tokbench.data.sets import ImageSet
from tokbench.downsampler import Downsampler
from tokbench.guard import Untouched, check_unchanged
from tokbench.isolation import start_over
from tokbench.kinds import KINDS
from tokbench.kinds.base import Kind
from tokbench.measure.accelerator import is_lost
from tokbench.measure.image_streams import Loading, image_ids
from tokbench.measure.precision import DTYPES, mixed_precision
from tokbench.measure.sample_images import batches_for, decoded, enough_images, sample_images
from tokbench.outcomes import shard_key, shards
from tokbench.results.store import ENDED, FAILED, SKIPPED, RecordWriter
from tokbench.run import build
from tokbench.run.contain import MethodFailedError, contained, is_built_in
from tokbench.run.observer import Observer
from tokbench.run.prepare import Prepared, Row
from tokbench.run.unreadable import LostImages
from tokbench.schedule import Schedule
from tokbench.suite import Suite
from tokbench.vit.adapters import TimmViT
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.calibration import method_state

if TYPE_CHECKING:
    from tokbench.measure.memory import Build

R = TypeVar("R")

LOST = "left the GPU unusable for its process"


@dataclass(frozen=True, eq=False)
class Bench:
    """Models on their device, images, a place for records, and an observer.

    Attributes:
        prepared: The plan.
        records: Where records go.
        observer: Shows progress.
        shards: The shards of the image set to measure.
    """

    prepared: Prepared
    records: RecordWriter
    observer: Observer
    shards: Sequence[range]
    _decoded: dict[tuple[str, int, int], list[Batch]] = field(default_factory=dict)
    _untouched: dict[str, Untouched] = field(default_factory=dict)

    recipe_module = build.__name__
    """The module that a process imports before it builds what `recipe` gives."""

    @property
    def suite(self) -> Suite:
        """The settings."""
        return self.prepared.suite

    @property
    def device(self) -> torch.device:
        """Where models run."""
        return self.prepared.device

    @property
    def images(self) -> ImageSet | None:
        """The image set, None without data."""
        return self.prepared.images

    # Models

    @contextmanager
    def on_device(self, names: Collection[str]) -> Iterator[None]:
        """Have some models on the device, in the suite's dtype."""
        models = {name: self.prepared.models[name].vit for name in names}
        for name, vit in models.items():
            vit.to(self.device, DTYPES[self.suite.dtype])
            if self.prepared.surroundings is not None:
                self._untouched[name] = Untouched(vit)
        try:
            with mixed_precision(self.suite.dtype, self.device):
                yield
        finally:
            self._decoded.clear()
            self._untouched.clear()
            if not is_lost(self.device):
                for vit in models.values():
                    vit.to("cpu")

    def plain(self, row: Row) -> TimmViT:
        """The row's model as timm made it."""
        return self.prepared.models[row.cell.model].vit

    def plain_model(self, row: Row) -> DownsampledViT:
        """The row's model without a method, in evaluation mode."""
        return DownsampledViT(self.plain(row)).eval()

    def input_model(self, row: Row) -> TimmViT:
        """The plain model that reads the row's images: timm's, or the same with fewer pixels."""
        return build.input_model(row.cell, self.prepared.models[row.cell.model])

    def build(self, row: Row) -> DownsampledViT:
        """The row's model with its method in it."""
        return build.build_model(row.cell, self.prepared.models[row.cell.model])

    def method(self, row: Row) -> tuple[Downsampler, Schedule]:
        """A new instance of the row's method, and its schedule."""
        return build.build_method(row.cell.variant)

    def constants(self, row: Row) -> dict[str, Tensor] | None:
        """The state of the row's method by name, where it is calibrated; else None."""
        constants = row.cell.variant.constants
        return method_state(load(constants)) if constants else None

    def save_plain(self, row: Row, images: Tensor, file: Path) -> None:
        """Write the row's plain model and images for `recipe`."""
        build.save_plain(self.prepared.models[row.cell.model], images, file)

    def recipe(self, row: Row, saved: Path) -> Build:
        """What another process builds the row's model from."""
        return build.recipe(row.cell, saved)

    # Images

    def same_images(self, rows: Mapping[str, Row]) -> list[dict[str, Row]]:
        """Rows of one model, by key, in groups that read images of the same size."""
        groups: dict[int | None, dict[str, Row]] = {}
        for key, row in rows.items():
            groups.setdefault(row.cell.variant.img_size, {})[key] = row
        return list(groups.values())

    def sample_images(self, rows: Collection[Row]) -> Tensor:
        """(n, C, H, W), enough for the batches of all of these rows, which have one model and size of images."""
        return self.some_images(next(iter(rows)), self._enough(rows))

    def plain_images(self, rows: Collection[Row]) -> Tensor:
        """(n, C, H, W) of the plain model's own size, enough for the batches of all of these rows."""
        return sample_images(self.plain(next(iter(rows))), self.images, self._enough(rows))

    def some_images(self, row: Row, count: int) -> Tensor:
        """(count, C, H, W) of the size that the row reads."""
        return sample_images(self.input_model(row), self.images, count)

    def _enough(self, rows: Collection[Row]) -> int:
        sizes = [row.cell.batch_size for row in rows]
        adaptive = any(row.cell.variant.adaptive for row in rows)
        return enough_images(sizes, adaptive, None if self.images is None else len(self.images))

    def batches(self, row: Row, images: Tensor) -> list[Tensor]:
        """The batches that the row is counted and timed on, out of what `sample_images` gives."""
        return batches_for(images, row.cell.batch_size, adaptive=row.cell.variant.adaptive)

    def decoded(self, row: Row, count: int, batch_size: int) -> list[Batch]:
        """So many images, evenly spaced over the set, for the row's model; decoded once while it is on the device."""
        wanted = (row.cell.model, count, batch_size)
        if wanted not in self._decoded:
            self._decoded[wanted] = decoded(self.plain(row), self._data().head(count), batch_size)
        return self._decoded[wanted]

    def forget_images(self) -> None:
        """Release what `decoded` holds, which would count as memory of the models."""
        self._decoded.clear()

    def ids(self, count: int) -> Tensor:
        """(count,) int64, the identities of the images that `decoded` gives."""
        return image_ids(self._data().head(count).names)

    def loading(self) -> Loading:
        """How all images are decoded."""
        suite, cuda = self.suite, self.device.type == "cuda"
        return Loading(suite.accuracy_batch, suite.workers, suite.memory, suite.cache, cuda)

    @property
    def lost_images(self) -> LostImages:
        """The images that could not be decoded."""
        return LostImages(self._data(), self.records)

    def labelled_sets(self) -> tuple[ImageSet, ImageSet]:
        """The image set, and the labelled images of `--train`."""
        if self.prepared.train is None:
            raise ValueError("this measurement needs training images; its kind's wanted must say so")
        return self._data(), self.prepared.train

    def _data(self) -> ImageSet:
        if self.images is None:
            raise ValueError("this measurement needs images; its kind's needs_data must say so")
        return self.images

    # Records

    def is_missing(self, kind: Kind[Any], key: str) -> bool:
        """Whether there is no record yet, or one that is not what the kind writes."""
        value = self.records.get(kind.name, key)
        if value is None:
            return True
        try:
            kind.adapter.validate_python(value)
        except ValidationError:
            return True
        return False

    def missing(self, kind: Kind[Any], rows: Iterable[Row]) -> dict[str, Row]:
        """One row for each measurement of a kind that is wanted and incomplete, by its key.

        A method that has ended a process in one measurement would end others in the next: it is left out, and the
        reason is written down for this measurement too.
        """
        wanted = {row.keys[kind.name]: row for row in rows if kind.name in row.keys}
        ended = self._ended_methods()
        for key, row in list(wanted.items()):
            cell = row.cell.variant
            if (reason := ended.get((cell.method, cell.params))) and self._is_incomplete(kind, key):
                self.records.add(FAILED, f"{kind.name}/{self._parts(kind, key)[0]}", {"reason": reason, ENDED: True})
                del wanted[key]
        return wanted if kind.sharded else {key: row for key, row in wanted.items() if self.is_missing(kind, key)}

    def _ended_methods(self) -> dict[tuple[str, Any], str]:
        """Why the methods, with their parameters, that have ended a process are not tried again."""
        ended = {}
        for row in self.prepared.measured_rows:
            for name, key in row.keys.items():
                for part in self._parts(KINDS[name], key):
                    record = self.records.get(FAILED, f"{name}/{part}") or {}
                    if record.get(ENDED):
                        ended[row.cell.variant.method, row.cell.variant.params] = str(record["reason"])
        return ended

    def _parts(self, kind: Kind[Any], key: str) -> list[str]:
        return [shard_key(key, shard) for shard in self.shards] if kind.sharded else [key]

    def _is_incomplete(self, kind: Kind[Any], key: str) -> bool:
        return any(self.is_missing(kind, part) for part in self._parts(kind, key))

    def each(self, kind: Kind[Any], rows: Mapping[str, Row]) -> Iterator[tuple[str, Row]]:
        """Go through rows by their keys, and tell the observer of each before it is measured."""
        self.observer.planned(kind.name, len(rows))
        for key, row in rows.items():
            self.observer.measuring(kind.name, key)
            yield key, row
            self.observer.measured(kind.name)

    def attempt(self, kind: Kind[R], key: str, measure: Callable[[], R]) -> bool:
        """Write a record, or why there is none: a method that fails costs its own rows only.

        Returns:
            Whether there is one.

        Raises:
            DataError: The image data cannot be used.
        """
        try:
            record = contained(self.step_name(kind, key), measure, self._check_for(self._row_of(kind, key)))
        except MethodFailedError as error:
            self.fail(kind, key, error)
            return False
        self.add(kind, key, record)
        return True

    def try_build(self, kind: Kind[Any], key: str, row: Row) -> DownsampledViT | None:
        """The row's model with its method in it; None where that fails, which is then why this record is missing."""
        try:
            name = f"building for {self.step_name(kind, key)}"
            return contained(name, partial(self.build, row), self._check_for(row))
        except MethodFailedError as error:
            self.fail(kind, key, error)
            return None

    def _check_for(self, row: Row | None) -> Callable[[], None] | None:
        """What puts back what a row's method changes; None for the plain model and for tokbench's own methods."""
        surroundings = self.prepared.surroundings
        if surroundings is None or row is None or is_built_in(row.cell.variant.method):
            return None
        return partial(check_unchanged, surroundings, self._untouched.values())

    def _row_of(self, kind: Kind[Any], key: str) -> Row | None:
        """A row that a measurement is of; None for the noise of a session."""
        return self._rows.get((kind.name, key.partition("/")[0]))

    @cached_property
    def _rows(self) -> dict[tuple[str, str], Row]:
        """A row of each measurement, by kind and key."""
        return {place: row for row in reversed(self.prepared.rows) for place in row.keys.items()}

    def step_name(self, kind: Kind[Any], key: str) -> str:
        """What a measurement is called while it runs."""
        row = self._row_of(kind, key)
        part = key.partition("/")[2]
        return f"{kind.name} of {'the plain model' if row is None else row.cell} ({key[:8]}{part and f'/{part}'})"

    def add(self, kind: Kind[R], key: str, record: R) -> None:
        """Write a record."""
        value = kind.adapter.dump_python(record, mode="json", exclude_defaults=True)
        self.records.add(kind.name, key, value)

    def fail(self, kind: Kind[Any], key: str, error: MethodFailedError) -> None:
        """Write why a record is missing.

        Raises:
            UserError: The method changed what cannot be put back, or the GPU is of no more use to this process, and
                there is no new process to go on in.
        """
        failure: dict[str, Any] = {"reason": str(error), **({SKIPPED: True} if error.skipped else {})}
        lost = is_lost(self.device)
        if error.ended or lost:
            reason = f"{LOST} ({error})" if lost else error
            failure = {"reason": f"{self.step_name(kind, key)} {reason}; --retry tries it again", ENDED: True}
        self.records.add(FAILED, f"{kind.name}/{key}", failure)
        if lost:
            start_over(f"{self.step_name(kind, key)} {LOST}")
        if error.spoiled:
            start_over("a method changed what could not be put back")

    def pass_on(self, kind: Kind[Any], key: str, other: Kind[Any], other_key: str) -> None:
        """Write that a record is missing for the reason that another one is."""
        self.records.add(FAILED, f"{kind.name}/{key}", self.records.get(FAILED, f"{other.name}/{other_key}") or {})


def open_bench(
    prepared: Prepared, records: RecordWriter, observer: Observer, wanted: Sequence[range] | None = None
) -> Bench:
    """A bench for a plan.

    Args:
        prepared: The plan.
        records: Where records go.
        observer: Shows progress.
        wanted: The shards of the image set to measure, in order; None for all.
    """
    count = 0 if prepared.images is None else len(prepared.images)
    every = shards(count, prepared.suite.accuracy_batch)
    return Bench(prepared, records, observer, every if wanted is None else wanted)
