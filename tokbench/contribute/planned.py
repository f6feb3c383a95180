"""The plan against its own settings: the rows that tokbench makes of them, with methods and models that it has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import timm
import torch

from tokbench.config import Config
from tokbench.contribute.problem import Name, Problem
from tokbench.errors import UserError
from tokbench.kinds import KINDS
from tokbench.model_names import place_of
from tokbench.names import EMBEDDED_MODELS, FINE_TUNED, GRAPHS, PLAIN
from tokbench.registry import discover
from tokbench.results import Plan, PlannedRow
from tokbench.rows import RowId
from tokbench.run.cells import UNTRAINED, Cell, cells_of
from tokbench.run.prepare import Row
from tokbench.schedule_text import takes_keep
from tokbench.sources import comes_with_tokbench

FOUND = re.compile(r"explicit\(.*\)$")  # at the end of the remark of a searched row


def check_plan(plan: Plan) -> Iterator[Problem]:
    """Check that methods and models are tokbench's, and that the rows are those of the plan's settings.

    Args:
        plan: Of the contributed results.
    """
    known = methods_of_tokbench()
    for name in dict.fromkeys(row.id.method for row in plan.rows):
        info = plan.methods.get(name)
        if name != PLAIN and (name not in known or (info is not None and info.own)):
            yield Problem(Name.UNKNOWN_METHOD, f"method '{name}' is not in tokbench: contribute the method first")
    for name in dict.fromkeys(row.id.model for row in plan.rows):
        if place_of(name) is not None or not (name in EMBEDDED_MODELS or timm.is_model(name)):
            yield Problem(Name.UNKNOWN_MODEL, f"model '{name}' is none of timm's or tokbench's: leave it out")


def check_rows(plan: Plan) -> Iterator[Problem]:
    """Check that the rows are those of the plan's settings, each with the measurements that these ask for.

    Args:
        plan: Of the contributed results, with methods and models that tokbench has.
    """
    try:
        cells = planned_cells(plan)
    except UserError as error:
        yield Problem(Name.CHANGED_PLAN, f"plan.json: its settings make no plan: {error}")
        return
    tuned = {row.id.method for row in plan.rows if row.id.regime == FINE_TUNED}
    present = {identity(row) for row in plan.rows}
    for row_id, cell in cells.items():
        if row_id not in present and not (cell.variant.skipped == UNTRAINED and cell.variant.method in tuned):
            yield Problem(Name.CHANGED_PLAN, f"plan.json: {cell} follows from its settings, and is not among its rows")
    seen: set[RowId] = set()
    for row in plan.rows:
        if row.id in seen:
            yield Problem(Name.CHANGED_PLAN, f"plan.json: {described(row)} is there twice")
        seen.add(row.id)
        own = identity(row)
        if own in cells:
            yield from _check_row(row, cells[own], plan)
        elif not (row.id.regime == FINE_TUNED and plan.suite.checkpoint):
            text = f"plan.json: {described(row)} does not follow from its settings with tokbench's own defaults"
            yield Problem(Name.CHANGED_PLAN, text)


def _check_row(row: PlannedRow, cell: Cell, plan: Plan) -> Iterator[Problem]:
    if row.adaptive != cell.variant.adaptive:
        yield Problem(Name.CHANGED_PLAN, f"plan.json: {described(row)}: adaptive is {row.adaptive}")
    if cell.variant.skipped and row.skipped != cell.variant.skipped:
        yield Problem(Name.CHANGED_PLAN, f"plan.json: {described(row)} must be skipped: {cell.variant.skipped}")
    if row.skipped or row.failed:
        return
    wanted = {name for name, kind in KINDS.items() if kind.wanted(Row(cell), plan.suite, torch.device(plan.device))}
    if any("cannot be evaluated on these data" in remark for remark in row.remarks):
        wanted = {name for name in wanted if not KINDS[name].compares_classes}
    if row.adaptive and row.id.mode in GRAPHS:
        wanted = {name for name in wanted if not KINDS[name].exclusive}
    if set(row.keys) != wanted:
        has, wants = (", ".join(names) or "nothing" for names in (sorted(row.keys), sorted(wanted)))
        text = f"plan.json: {described(row)} is to have {has}, and its settings ask for {wants}"
        yield Problem(Name.CHANGED_PLAN, text)


def methods_of_tokbench() -> list[str]:
    """The names of the methods that come with tokbench, whatever else is installed here."""
    known, _ = discover()
    return [name for name, cls in known.items() if comes_with_tokbench(cls)]


def planned_cells(plan: Plan) -> Mapping[RowId, Cell]:
    """The cells of a plan's settings with tokbench's own defaults, by the `identity` of their rows.

    Rows of checkpoints are left out, since these are not there.

    Raises:
        UserError: A setting is wrong.
    """
    suite = plan.suite.model_copy(update={"checkpoint": None})
    cells = cells_of(suite, Config(), methods_of_tokbench())
    return {cell.row_id(suite.dtype): cell for cell in cells}


def cell_of(row: PlannedRow, cells: Mapping[RowId, Cell]) -> Cell | None:
    """What a row measures, with the keep that was solved and the schedule that was found; None where that is not known.

    Of a fine-tuned row, it is the same without training, whose counts are equal.
    """
    cell = cells.get(identity(row))
    if cell is None:
        untrained = identity(row).without("regime", "seed")
        same = (one for row_id, one in cells.items() if row_id.without("regime", "seed") == untrained)
        cell = next(same, None)
    if cell is None:
        return None
    found = next((match[0] for remark in row.remarks if (match := FOUND.search(remark))), "")
    if cell.variant.schedule.startswith("searched") and not found:
        return None
    return replace(cell, variant=replace(cell.variant, keep=row.id.keep, found=found))


def identity(row: PlannedRow) -> RowId:
    """A row's identity without the keep that was solved for a budget, which the settings do not say."""
    given = not row.id.schedule or takes_keep(row.id.schedule)
    return row.id if given else row.id.without("keep")


def described(row: PlannedRow) -> str:
    """`tome(r=13) at keep 0.7, seed 1, in deit_tiny_patch16_224`, as a cell is described."""
    one = row.id
    method = f"{one.method}({one.params})" if one.params else one.method
    schedule = f" with {one.schedule}" if one.schedule else ""
    keep = "" if one.keep is None or one.method == PLAIN else f" at keep {one.keep:g}"
    seed = "" if one.seed is None else f", seed {one.seed},"
    return f"{method}{schedule}{keep}{seed} in {one.model}"
