"""From cells to rows that can be measured: methods tried in their models, budgets solved, keys for every record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from tokbench.config import Suite
from tokbench.data.sets import ImageSet
from tokbench.errors import UserError
from tokbench.measure.budget import OutOfReachError, solve_keep
from tokbench.measure.macs import count_macs, spread_of_macs
from tokbench.measure.sample_images import batches_for, enough_images, sample_images
from tokbench.names import PLAIN
from tokbench.run.build import build_model
from tokbench.run.cells import Cell, Variant
from tokbench.run.inputs import Inputs, open_inputs
from tokbench.run.keys import keys_of
from tokbench.schedule import Budget, Schedule
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import MethodWeightsError, Pretrained


@dataclass(frozen=True)
class Row:
    """A cell that can be measured.

    Attributes:
        cell: What is measured.
        keys: The key of each wanted measurement, by its kind; empty where the cell is skipped.
        attention_kernel: `fused`, `eager` or `fused+eager`.
        params_m: Millions of parameters.
        failed: Why the method cannot be put into the model; empty where it can.
    """

    cell: Cell
    keys: dict[str, str] = field(default_factory=dict)
    attention_kernel: str = ""
    params_m: float | None = None
    failed: str = ""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything that a run needs.

    Attributes:
        suite: The settings.
        device: Where it runs.
        models: By name.
        images: None without data.
        rows: In the plan's order.
    """

    suite: Suite
    device: torch.device
    models: dict[str, Pretrained]
    images: ImageSet | None
    rows: tuple[Row, ...]

    @property
    def measured_rows(self) -> list[Row]:
        """The rows that something is measured of."""
        return [row for row in self.rows if row.keys and not row.failed]


def prepare(cells: Sequence[Cell], suite: Suite) -> Prepared:
    """Load and check everything, so that user errors come before the first measurement.

    Args:
        cells: The plan.
        suite: Its settings.

    Raises:
        UserError: A model, its weights, the device or the data cannot be opened, or do not fit together.
    """
    inputs = open_inputs(suite)
    tried: dict[tuple[str, Variant], Row] = {}
    for cell in cells:
        if (cell.model, cell.variant) not in tried:
            tried[cell.model, cell.variant] = _try(cell, inputs)
    rows = []
    for cell in cells:
        row = tried[cell.model, cell.variant]
        row = replace(row, cell=replace(cell, variant=row.cell.variant))
        rows.append(row if row.cell.variant.skipped else replace(row, keys=keys_of(row, suite, inputs)))
    return Prepared(suite, inputs.device, inputs.models, inputs.images, tuple(rows))


def _try(cell: Cell, inputs: Inputs) -> Row:
    """The cell with its budget solved and its method put into the model once."""
    if cell.variant.skipped and _budget(cell.variant):  # solving it would be for nothing
        return Row(cell)
    try:
        cell = _solved(cell, inputs)
        built = build_model(cell, inputs.models[cell.model])
    # One method of many may be unable to reach the budget: it must not stop the others.
    except OutOfReachError as error:
        return Row(replace(cell, variant=replace(cell.variant, skipped=str(error))))
    # The weights are of one method, and others may be compared with it.
    except MethodWeightsError as error:
        return Row(cell, failed=str(error))
    except UserError:
        raise
    # A method may be anybody's code: an error fails only its own rows.
    except Exception as error:
        return Row(cell, failed=f"{type(error).__name__}: {error}".splitlines()[0])
    params = sum(parameter.numel() for parameter in built.parameters())
    return Row(cell, {}, built.attention_kernel, params / 1e6)


def _solved(cell: Cell, inputs: Inputs) -> Cell:
    """A cell whose budget, if it has one, is solved for the keep, on the images that its MACs will be counted on."""
    budget = _budget(cell.variant)
    if budget is None:
        return cell
    model, adaptive = inputs.models[cell.model], cell.variant.adaptive
    vit = model.vit
    available = None if inputs.images is None else len(inputs.images)
    images = sample_images(vit, inputs.images, enough_images([cell.batch_size], adaptive, available))
    plain = count_macs(DownsampledViT(vit).eval(), images[:1]).total

    known: dict[tuple[int, ...], float] = {}

    def cost(keep: float) -> float:
        built = build_model(replace(cell, variant=replace(cell.variant, keep=keep)), model)
        if adaptive:
            return spread_of_macs(built, batches_for(images, cell.batch_size, adaptive=True)).total / plain
        # Several keeps leave the same tokens, and then cost the same.
        if built.counts not in known:
            known[built.counts] = count_macs(built, images[:1]).total / plain
        return known[built.counts]

    return replace(cell, variant=replace(cell.variant, keep=solve_keep(cost, budget.fraction)))


def _budget(variant: Variant) -> Budget | None:
    """The variant's budget as long as it has no keep."""
    if variant.method == PLAIN or variant.keep is not None:
        return None
    schedule = Schedule.parse(variant.schedule)
    return schedule if isinstance(schedule, Budget) else None
