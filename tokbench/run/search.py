"""Searching a schedule for a cell while a comparison is prepared, as a budget is solved there."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tokbench.data.labelling import IMAGENET_CLASSES
from tokbench.errors import UserError
from tokbench.files import remove_scratch
from tokbench.measure.budget import OutOfReachError
from tokbench.measure.equal_cost_counts import Backbone
from tokbench.measure.known_shapes import Direction, known_shapes
from tokbench.measure.macs import count_macs, spread_of_macs
from tokbench.measure.plain_answers import Closeness, PlainAnswers
from tokbench.measure.precision import DTYPES
from tokbench.measure.sample_images import batches_to_count, sample_images
from tokbench.measure.schedule_search import Subject, Trial, carry_out, search
from tokbench.model_names import file_stem
from tokbench.names import CALIBRATED
from tokbench.results.lock import locked
from tokbench.run.build import build_method, build_model
from tokbench.run.calibration import Calibration, with_constants
from tokbench.run.contain import MethodFailedError, contained
from tokbench.run.found_schedule import FoundSchedule, is_written, write_found
from tokbench.run.keys import search_key
from tokbench.run.trial_log import TrialFile
from tokbench.schedule import Explicit, Schedule, Searched
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import Pretrained

if TYPE_CHECKING:
    from tokbench.run.cells import Cell
    from tokbench.run.inputs import Inputs
    from tokbench.run.variant import Variant
    from tokbench.suite import Suite

SCHEDULES = "schedules"
MIB = 2**20
NO_IMAGES = "needs images to search on: name them with --calibration, or set a part apart as in --set-apart 0.2"

Tell = Callable[[str], None]
"""Gets what is being done, to show it."""


@dataclass(frozen=True, eq=False)
class SearchSetting:
    """What the trials of a search have in common.

    Attributes:
        cell: The cell, without a schedule.
        wanted: What to search for.
        inputs: Models and images.
        calibration: The images to search on.
        suite: The settings.
        check: Puts back what the method's code has changed; None for tokbench's own methods.
    """

    cell: Cell
    wanted: Searched
    inputs: Inputs
    calibration: Calibration
    suite: Suite
    check: Callable[[], None] | None
    _built: dict[Explicit, DownsampledViT] = field(default_factory=dict)

    @cached_property
    def model(self) -> Pretrained:
        """The plain model in the suite's precision, on its device; the original stays where it is."""
        original = self.inputs.models[self.cell.model]
        device, dtype = self.inputs.device, DTYPES[self.suite.dtype]
        return replace(original, vit=copy.deepcopy(original.vit).to(device, dtype))

    @cached_property
    def plain(self) -> DownsampledViT:
        """The model without the method."""
        return DownsampledViT(self.model.vit).eval()

    @cached_property
    def answers(self) -> PlainAnswers:
        """Those of the plain model."""
        vit = self.inputs.models[self.cell.model].vit
        weight = self.model.vit.patch_embed.proj.weight
        batches = [batch.to(weight) for batch in self.calibration.batches(vit)]
        classes = self.calibration.images.classes if vit.num_classes == IMAGENET_CLASSES else None
        return PlainAnswers(self.plain, batches, classes, self.suite.memory * MIB)

    @cached_property
    def counted_on(self) -> Sequence[Tensor]:
        """The batches that MACs are counted on: for an adaptive method those of the row."""
        if self.cell.variant.adaptive:
            return batches_to_count(self.model.vit, self.inputs.images, self.cell.batch_size, adaptive=True)
        return [sample_images(self.model.vit, None, 1)]

    @cached_property
    def plain_macs(self) -> int:
        """Of one image."""
        return count_macs(self.plain, self.counted_on[0][:1]).total

    @cached_property
    def backbone(self) -> Backbone:
        """What counts cost."""
        return Backbone(self.plain, build_method(self.cell.variant)[0], str(self.cell.variant.site))

    @property
    def subject(self) -> Subject:
        """What the search needs of this."""
        return Subject(self.backbone, self.wanted.fraction, self.cost, self.closeness)

    @cached_property
    def shapes(self) -> list[Direction]:
        """What is tried first."""
        return known_shapes(self.backbone, self.wanted.fraction)

    def build(self, schedule: Explicit) -> DownsampledViT:
        """The model with the method and a schedule; the last one is kept, to be counted and then compared."""
        if schedule not in self._built:
            self._built.clear()
            self._built[schedule] = self._build(schedule)
        return self._built[schedule]

    def cost(self, schedule: Explicit) -> float:
        """The MACs of a schedule, as a fraction of the plain model's."""
        return spread_of_macs(self.build(schedule), self.counted_on).total / self.plain_macs

    def closeness(self, schedule: Explicit) -> Closeness:
        """How close the method stays to the plain model with a schedule."""
        return self.answers.closeness(self.build(schedule))

    def _build(self, schedule: Explicit) -> DownsampledViT:
        cell = replace(self.cell, variant=replace(self.cell.variant, found=str(schedule)))
        if cell.variant.regime == CALIBRATED:
            cell = with_constants(cell, self.inputs.models[cell.model], self.calibration, self.inputs.device)
        return build_model(cell, self.model)


def searched(
    cell: Cell,
    wanted: Searched,
    inputs: Inputs,
    suite: Suite,
    out: Path,
    check: Callable[[], None] | None,
    tell: Tell,
) -> Cell:
    """A cell with the best schedule that a search finds; trials of earlier runs are not made again.

    Args:
        cell: The cell.
        wanted: What to search for.
        inputs: Models and images.
        suite: The settings.
        out: The results directory, which keeps the trials and what was found.
        check: Puts back what the method's code has changed; None for tokbench's own methods.
        tell: Gets the number of each trial.

    Raises:
        UserError: There are no images, Optuna is missing, the model has no classes, or the directory cannot be written.
        OutOfReachError: No schedule that was tried costs what it should.
        MethodFailedError: The method fails before any trial has succeeded.
    """
    calibration = inputs.calibration
    if calibration is None:
        raise UserError(f"schedule '{wanted}' {NO_IMAGES}")
    if importlib.util.find_spec("optuna") is None:
        raise UserError(f"schedule '{wanted}' needs Optuna: pip install 'tokbench[search]'")
    if not inputs.models[cell.model].classes:
        raise UserError(f"schedule '{wanted}' needs a model that predicts classes, and {cell.model} has no head")
    key = search_key(cell, wanted, inputs, calibration, suite)
    name = f"{file_stem(cell.model)}-{cell.variant.method}-{wanted.fraction:g}-{key[:8]}"
    setting = SearchSetting(cell, wanted, inputs, calibration, suite, check)
    folder = (out / SCHEDULES).absolute()  # a method may change the working directory
    with locked(folder):
        remove_scratch(folder)
        log = TrialFile(folder / f"{name}.jsonl", key)
        shapes = contained(f"beginning {wanted} for {cell}", lambda: setting.shapes, check)
        blocks = range(setting.backbone.first, setting.backbone.blocks)
        attempt = partial(_attempt, setting, log, tell)
        if len(log.trials) < wanted.trials:
            _ = setting.answers  # a failure of the plain model is not that of a trial
        best = search(shapes, blocks, log, wanted.trials, wanted.seed, attempt)
        if best.failed:
            raise OutOfReachError(f"none of {wanted.trials} schedules fits: {best.failed}")
        file = folder / f"{name}-{wanted.trials}.toml"
        if not is_written(file, best, wanted.trials, calibration.shared):
            write_found(_found(setting, best, log.trials[: wanted.trials]), file)
    return replace(cell, variant=replace(cell.variant, found=best.schedule))


def remark(variant: Variant, calibration: Calibration) -> str:
    """Which schedule a row has, and how it was found."""
    wanted = Schedule.parse(variant.schedule)
    assert isinstance(wanted, Searched)
    return f"{calibration.described('searched')}, {wanted.trials} trials: {variant.found}"


def _attempt(setting: SearchSetting, log: TrialFile, tell: Tell, number: int, direction: Direction) -> Trial:
    """A trial, which a failure of the method costs only if no trial before has succeeded.

    Raises:
        MethodFailedError: The method fails otherwise, or memory runs out.
    """
    cell, wanted, before = setting.cell, setting.wanted, log.trials[:number]
    name = f"trial {number + 1} of {wanted} for {cell}"
    tell(f"searching: {name}")
    try:
        return _contained_twice(name, partial(carry_out, setting.subject, direction, before), setting.check)
    except MethodFailedError as failure:
        passing = isinstance(failure.error, MemoryError | torch.cuda.OutOfMemoryError)
        if failure.spoiled or passing or all(trial.failed for trial in before):
            raise
        return Trial(direction, failed=str(failure))


def _contained_twice(name: str, work: Callable[[], Trial], check: Callable[[], None] | None) -> Trial:
    """Carry out a trial, and once more if the process has ended in it: it may have been killed.

    Raises:
        MethodFailedError: The method failed, or the process has ended both times.
    """
    try:
        return contained(name, work, check)
    except MethodFailedError as failure:
        if not failure.ended:
            raise
    return contained(f"{name}, once more", work, check)


def _found(setting: SearchSetting, best: Trial, trials: Sequence[Trial]) -> FoundSchedule:
    cell, images = setting.cell, setting.calibration.images
    first = trials[0]  # of the known shapes, which begin with stages
    return FoundSchedule(
        best=best,
        stages=None if first.failed else first,
        plain_gmacs=setting.plain_macs / 1e9,
        subject={
            "model": cell.model,
            "method": cell.variant.method,
            "params": cell.variant.params_text,
            "site": str(cell.variant.site),
            "fraction": setting.wanted.fraction,
        },
        images={
            "name": images.name,
            "count": setting.calibration.count(setting.inputs.models[cell.model].vit),
            "identity": images.identity,
            "measured_as_well": setting.calibration.shared,
        },
        trials=len(trials),
        failed=sum(bool(trial.failed) for trial in trials),
        seed=setting.wanted.seed,
        versions={name: version(name) for name in ("tokbench", "torch", "timm", "optuna")},
    )
