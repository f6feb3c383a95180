"""From cells to rows that can be measured: methods tried in their models, budgets solved, keys for every record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from tokbench.data.sets import ImageSet
from tokbench.errors import UnwritableError, UserError
from tokbench.guard import Surroundings, Untouched, check_unchanged
from tokbench.kinds import KINDS
from tokbench.measure.budget import OutOfReachError, solve_keep
from tokbench.measure.macs import spread_of_macs
from tokbench.measure.sample_images import batches_to_count
from tokbench.names import CALIBRATED, GRAPHS, PLAIN, POSITIONS
from tokbench.run.build import build_model
from tokbench.run.calibration import (
    Calibration,
    checkpoint_of,
    read_checkpoint,
    with_constants,
    write_checkpoint,
)
from tokbench.run.cells import Cell
from tokbench.run.contain import MethodFailedError, contained, is_built_in
from tokbench.run.inputs import Inputs, open_inputs
from tokbench.run.keys import calibration_key, keys_of
from tokbench.run.labelling import in_another_order
from tokbench.run.search import Tell, remark, searched
from tokbench.run.variant import Variant
from tokbench.schedule import Budget, Schedule, Searched
from tokbench.suite import Suite
from tokbench.trained.reading import CHECKPOINTS
from tokbench.vit.adapters import has_rotary
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import MethodWeightsError, Pretrained

NO_GRAPH = (
    "a CUDA graph has a fixed number of tokens, which in this method depends on the images: use --mode eager or compile"
)


def silent(text: str) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Row:
    """A cell that can be measured.

    Attributes:
        cell: What is measured.
        keys: The key of each wanted measurement, by its kind; empty where the cell is skipped.
        attention_kernel: `fused`, `eager` or `fused+eager`.
        params_m: Millions of parameters.
        failed: Why the method cannot be put into the model; empty where it can.
        remarks: What a reader should know of the row.
    """

    cell: Cell
    keys: dict[str, str] = field(default_factory=dict)
    attention_kernel: str = ""
    params_m: float | None = None
    failed: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything that a run needs.

    Attributes:
        suite: The settings.
        device: Where it runs.
        models: By name.
        images: None without data.
        train: Labelled images to find nearest neighbours among; None without.
        calibration: Images to calibrate on; None without.
        rows: In the plan's order.
        classes: How many classes an image may belong to.
        surroundings: What methods must leave as it is; None where all of them come with tokbench.
    """

    suite: Suite
    device: torch.device
    models: dict[str, Pretrained]
    images: ImageSet | None
    train: ImageSet | None
    calibration: Calibration | None
    rows: tuple[Row, ...]
    classes: int
    surroundings: Surroundings | None

    @property
    def measured_rows(self) -> list[Row]:
        """The rows that something is measured of."""
        return [row for row in self.rows if row.keys and not row.failed]


def prepare(cells: Sequence[Cell], suite: Suite, out: Path | None = None, tell: Tell = silent) -> Prepared:
    """Load and check everything, so that user errors come before the first measurement.

    Args:
        cells: The plan.
        suite: Its settings.
        out: The results directory, which keeps the constants of calibrated methods and the trials of searches; with
            None, constants are not kept, and no schedule is searched.
        tell: Gets what takes long, to show it.

    Raises:
        UserError: A model, its weights, the device or the data cannot be opened, or do not fit together.
    """
    own = {cell.model: file for cell in cells if (file := cell.variant.fine_tuned) is not None and file.own_model}
    inputs = open_inputs(suite, own)
    surroundings = Surroundings() if any(not is_built_in(cell.variant.method) for cell in cells) else None
    tried: dict[tuple[str, Variant], Row] = {}
    refused: list[str] = []
    for model, pretrained in inputs.models.items():
        check = None
        if surroundings is not None:
            check = partial(check_unchanged, surroundings, [Untouched(pretrained.vit)])
        firsts: dict[Variant, Cell] = {}
        for cell in cells:
            if cell.model == model:
                firsts.setdefault(cell.variant, cell)
        for variant, cell in firsts.items():
            needed = None if is_built_in(variant.method) else check
            try:
                cell = _with_schedule(cell, inputs, suite, out, needed, tell)
                row = contained(f"building {cell}", partial(_try, cell, inputs, out), needed)
            except MethodFailedError as failure:
                row = _without_measurements(cell, failure)
                if row.cell.variant.skipped and not isinstance(failure.error, OutOfReachError):
                    refused.append(str(failure.error))
            tried[model, variant] = row
    if inputs.calibration is not None:
        inputs.calibration.forget_images()
    methods = [row for row in tried.values() if row.cell.variant.method != PLAIN]
    # One method of many may be unable to act in a model. If none is able to, it is the settings' mistake.
    if refused and len(refused) == len(methods):
        raise UserError(refused[0])
    rows = [_with_keys(cell, tried[cell.model, cell.variant], suite, inputs) for cell in cells]
    unfit = [row.cell.variant.skipped for row in rows if row.cell.variant.skipped in row.remarks]
    if unfit and len(unfit) == len(rows):
        raise UserError(f"{unfit[0]}; macs and latency can be measured: --only macs,latency")
    return Prepared(
        suite,
        inputs.device,
        inputs.models,
        inputs.images,
        inputs.train,
        inputs.calibration,
        tuple(rows),
        inputs.classes,
        surroundings,
    )


def _with_keys(cell: Cell, row: Row, suite: Suite, inputs: Inputs) -> Row:
    """A cell's row with the keys of its measurements, without those that its model's head makes impossible."""
    loaded = inputs.models[cell.model].remarks
    row = replace(row, cell=replace(cell, variant=row.cell.variant), remarks=(*row.remarks, *loaded))
    if row.cell.variant.skipped:
        return row
    keys = keys_of(row, suite, inputs)
    if cell.mode in GRAPHS and row.cell.variant.adaptive:
        keys = {kind: key for kind, key in keys.items() if not KINDS[kind].exclusive}
        row = replace(row, remarks=(*row.remarks, NO_GRAPH))
        if not keys:
            return replace(row, cell=replace(row.cell, variant=replace(row.cell.variant, skipped=NO_GRAPH)))
    unfit = _unfit(inputs.models[cell.model], row.cell.variant, inputs)
    if not unfit or not any(KINDS[kind].compares_classes for kind in keys):
        return replace(row, keys=keys)
    remark = f"{cell.model} cannot be evaluated on these data: {unfit}"
    keys = {kind: key for kind, key in keys.items() if not KINDS[kind].compares_classes}
    if not keys:
        row = replace(row, cell=replace(row.cell, variant=replace(row.cell.variant, skipped=remark)))
    return replace(row, keys=keys, remarks=(*row.remarks, remark))


def _unfit(model: Pretrained, variant: Variant, inputs: Inputs) -> str:
    """Why a row's answers cannot be compared with the labels; empty if they can."""
    classes = model.classes if variant.fine_tuned is None else variant.fine_tuned.classes or 0
    if classes != inputs.classes:
        head = f"its head has {classes} outputs" if classes else "it has no head"
        return f"{head}, and there are {inputs.classes} classes"
    if inputs.images is not None and in_another_order(inputs.images, model):
        return "its weights name its outputs in another order than that of the classes; compare it by itself"
    return ""


def _with_schedule(
    cell: Cell, inputs: Inputs, suite: Suite, out: Path | None, check: Callable[[], None] | None, tell: Tell
) -> Cell:
    """The cell with the schedule that a search finds, where one is wanted; without a directory nothing is searched.

    Raises:
        MethodFailedError: The method failed, or no schedule could be found.
    """
    if out is None or cell.variant.failed or cell.variant.skipped:
        return cell
    wanted = _search(cell.variant)
    if wanted is None:
        return cell
    try:
        return searched(cell, wanted, inputs, suite, out, check, tell)
    except UnwritableError:
        raise
    except UserError as error:
        raise MethodFailedError(error) from error


def _try(cell: Cell, inputs: Inputs, out: Path | None) -> Row:
    """The cell with its budget solved, and its method calibrated and put into the model once."""
    if cell.variant.failed:
        return Row(cell, failed=cell.variant.failed)
    calibrated = cell.variant.regime == CALIBRATED
    wanted = _search(cell.variant)
    if cell.variant.skipped and (calibrated or wanted or _budget(cell.variant)):  # this would be for nothing
        return Row(cell)
    if wanted is not None:  # only planned
        return Row(cell)
    remarks = list(cell.variant.remarks)
    if cell.variant.found and inputs.calibration is not None:
        remarks.append(remark(cell.variant, inputs.calibration))
    if calibrated and inputs.calibration is not None:
        cell = _calibrated(cell, inputs, inputs.calibration, out)
        remarks.append(inputs.calibration.described("calibrated"))
    cell = solved(cell, inputs)
    built = build_model(cell, inputs.models[cell.model])
    if built.position != POSITIONS[0] and has_rotary(built.vit):
        remarks.append(f"rotary position of merged tokens: {built.position}")
    params = sum(parameter.numel() for parameter in built.parameters())
    return Row(cell, {}, built.attention_kernel, params / 1e6, remarks=tuple(remarks))


def _calibrated(cell: Cell, inputs: Inputs, calibration: Calibration, out: Path | None) -> Cell:
    """A cell with its method's constants, and its budget solved: those of an earlier run, or new ones."""
    if cell.variant.constants:
        return cell
    key = calibration_key(cell, inputs, calibration)
    found = None if out is None else read_checkpoint(cell, key, out / CHECKPOINTS)
    if found is not None:
        return found
    cell = with_constants(solved(cell, inputs), inputs.models[cell.model], calibration, inputs.device)
    if out is not None:
        about = checkpoint_of(cell, key, calibration, inputs.models[cell.model].vit)
        write_checkpoint(about, cell.variant.constants, out / CHECKPOINTS)
    return cell


def _without_measurements(cell: Cell, failure: MethodFailedError) -> Row:
    """The row of a method that cannot be put into the model.

    Raises:
        UserError: The plain model cannot be built, or something was changed that could not be put back.
    """
    error = failure.error
    if failure.spoiled:
        raise UserError(f"{cell}: {failure}, and could not be put back: leave this method out")
    if isinstance(error, UserError) and cell.variant.method == PLAIN:
        raise error
    # The weights in a file are of one method, and others may be compared with it.
    if isinstance(error, UserError) and not isinstance(error, MethodWeightsError):
        return Row(replace(cell, variant=replace(cell.variant, skipped=str(error))))
    return Row(cell, failed=str(failure.error) if isinstance(error, UserError) else str(failure))


def solved(cell: Cell, inputs: Inputs) -> Cell:
    """A cell whose budget, if it has one, is solved for the keep, on the images that its MACs will be counted on."""
    budget = _budget(cell.variant)
    if budget is None:
        return cell
    model, adaptive = inputs.models[cell.model], cell.variant.adaptive
    batches = batches_to_count(model.vit, inputs.images, cell.batch_size, adaptive=adaptive)
    counted = batches if adaptive else [batches[0][:1]]
    plain = spread_of_macs(DownsampledViT(model.vit).eval(), counted).total

    known: dict[tuple[int, ...], float] = {}

    def cost(keep: float) -> float:
        candidate = replace(cell, variant=replace(cell.variant, keep=keep))
        if cell.variant.regime == CALIBRATED and inputs.calibration is not None:
            candidate = with_constants(candidate, model, inputs.calibration, inputs.device)
        built = build_model(candidate, model)
        if adaptive:
            return spread_of_macs(built, counted).total / plain
        # Several keeps leave the same tokens, and then cost the same. Counting by every route takes ten times as long;
        # it is done once, for the row.
        if built.counts not in known:
            known[built.counts] = spread_of_macs(built, counted).total / plain
        return known[built.counts]

    return replace(cell, variant=replace(cell.variant, keep=solve_keep(cost, budget.fraction)))


def _budget(variant: Variant) -> Budget | None:
    """The variant's budget as long as it has no keep."""
    if variant.method == PLAIN or variant.keep is not None:
        return None
    schedule = Schedule.parse(variant.schedule)
    return schedule if isinstance(schedule, Budget) else None


def _search(variant: Variant) -> Searched | None:
    """What to search for the variant as long as nothing has been found."""
    if variant.method == PLAIN or variant.found:
        return None
    schedule = Schedule.parse(variant.schedule, variant.keep)
    return schedule if isinstance(schedule, Searched) else None
