"""One method against the others, or one schedule: paired differences in top-1 on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tokbench.errors import UserError
from tokbench.kinds import KINDS
from tokbench.names import PLAIN
from tokbench.notation import parse_call
from tokbench.outcomes import RIGHT, UNREADABLE, marks_of
from tokbench.results.method_rows import rows_of
from tokbench.results.plan import Plan, PlannedRow
from tokbench.rows import RowId
from tokbench.schedule import KINDS as SCHEDULES
from tokbench.schedule import Schedule
from tokbench.schedule_text import names_cost, takes_keep
from tokbench.stats.differences import images_to_settle, mean_interval, score_p
from tokbench.stats.pareto import equal_cost
from tokbench.stats.proportions import mcnemar, tango

if TYPE_CHECKING:
    from tokbench.results.directory import Results


BETTER, WORSE, UNDECIDED, NOT_COMPARABLE = "better", "worse", "undecided", "not comparable"

THIS = "this comparison"
SETTING = ("model", "method", "params", "regime", "site", "schedule", "keep")
COMPARISON = """
    seeds versus gmacs versus_gmacs images delta_top1 delta_lo delta_hi gained lost p verdict images_needed note
""".split()
COLUMNS = (*SETTING, *COMPARISON)
TYPES = {
    **dict.fromkeys(("keep", "gmacs", "versus_gmacs", "delta_top1", "delta_lo", "delta_hi", "p"), "float64"),
    **dict.fromkeys(("seeds", "images", "gained", "lost", "images_needed"), "Int64"),
    **dict.fromkeys(("model", "method", "params", "regime", "site", "schedule", "versus", "verdict", "note"), "string"),
}


@dataclass(frozen=True)
class Setting:
    """A method at a setting: one row for each seed. What identifies a row but not a setting is blank in `id`."""

    id: RowId
    rows: tuple[PlannedRow, ...]

    @property
    def place(self) -> tuple[str, float | None]:
        """Schedule and keep; the keep of a budget is solved for each method, so that it is no part of the setting."""
        return self.id.schedule, None if names_cost(self.id.schedule) else self.id.keep


def versus(results: Results, *others: str) -> pd.DataFrame:
    """All methods of a directory against one of them, or each method against itself with one of its schedules.

    Against a method, rows are paired if model, schedule and keep agree; with a budget, model and budget. The plain
    model and its baselines with fewer pixels have no schedule, so that all rows of their model are compared with them.
    Against a schedule, rows are paired if they differ in schedule and keep alone; of several keeps the one with the
    nearest MACs counts. Where the MACs differ by more than 1 %, `note` says so.

    Two rows of one seed each have Tango's interval and McNemar's exact p. With several seeds, an image counts once,
    with the mean of its answers over the seeds; interval and p are those of a mean (`mean_interval`, `score_p`). They
    are about the measured seeds, whose spread is `top1_sd` in the main table.

    Args:
        results: The directory.
        others: What to compare with. Methods, as in `evit`, `score_pruning(score=cls)` or `none(img_size=192)`;
            parameters may be left out where the directory has one variant of the method, or one with the defaults.
            Or schedules, as in `budget(0.7)`.

    Returns:
        A row for each setting of another method: `SETTING`, and
            seeds: How many of its rows were averaged.
            versus: The method or schedule that it is compared with.
            gmacs, versus_gmacs: Billions of MACs of both.
            images: How many images both could read.
            delta_top1, delta_lo, delta_hi: Points of top-1 above the other method, with the 95 % interval.
            gained, lost: Images that it has right more often, and less often.
            p: Two-sided.
            verdict: `better`, `worse`, `undecided`, or `not comparable`.
            images_needed: How many images like these would settle an undecided difference of this size; missing if it
                is 0, as no number would.
            note: What else a reader should know, such as why there is no number.

    Raises:
        UserError: A method or schedule is not in the directory, or accuracy was not measured.
    """
    rows = [row for other in others for row in _versus(results, other)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(TYPES)


def _versus(results: Results, other: str) -> list[dict[str, Any]]:
    """The rows against one method or schedule."""
    where = str(results.directory)
    reference = _reference(results.plan, other, where)
    _check_accuracy(results.plan, where)
    name = str(parse_call(other))
    settings = settings_of(results.plan.rows)
    chosen = [one for one in settings if one.rows[0] in reference and _answers(one, results) is not None]
    if not chosen:
        raise UserError(f"{where} has no answers of {name} yet: run the same tokbench compare again")
    is_plain = reference[0].id.method == PLAIN
    others = [one for one in settings if one.rows[0] not in reference and (is_plain or one.id.method != PLAIN)]
    if _is_schedule(results.plan, other):
        return [
            against(one, _itself(one, chosen, results), f"not measured with {name}", name, results) for one in others
        ]
    return [against(one, _counterpart(one, chosen), _why_not(one, chosen, name), name, results) for one in others]


def _reference(plan: Plan, other: str, where: str) -> list[PlannedRow]:
    """The rows that a method or a schedule, as the user writes it, stands for.

    Raises:
        UserError: There are none.
    """
    if not _is_schedule(plan, other):
        return rows_of(plan, other, where)
    schedule = str(Schedule.parse(other, 0.5 if takes_keep(other) else None))  # as the table shows it
    rows = [row for row in plan.rows if row.id.schedule == schedule]
    if not rows:
        known = dict.fromkeys(row.id.schedule for row in plan.rows if row.id.schedule)
        raise UserError(f"{where} has no rows with the schedule {schedule}: it has {', '.join(known)}")
    return rows


def _is_schedule(plan: Plan, other: str) -> bool:
    """Whether this is a schedule; a plugin's method may have the name of one."""
    name = parse_call(other).name
    return name in SCHEDULES and all(row.id.method != name for row in plan.rows)


def check_versus(plan: Plan, others: Sequence[str]) -> None:
    """Check, before anything is measured, that all methods can be compared with these methods and schedules.

    Raises:
        UserError: One is not in the plan or will not be measured, or accuracy is not in it.
    """
    for other in others:
        reasons = [row.skipped or row.failed for row in _reference(plan, other, THIS)]
        if all(reasons):
            raise UserError(f"nothing can be compared with {other}: {reasons[0]}")
    _check_accuracy(plan, THIS)


def _check_accuracy(plan: Plan, where: str) -> None:
    if not any("accuracy" in row.keys for row in plan.rows):
        raise UserError(f"{where} has no accuracies to compare: measure them with --only macs,accuracy and --data")


def settings_of(rows: Sequence[PlannedRow]) -> list[Setting]:
    """The settings whose accuracy is wanted, in the table's order; batch sizes and modes share their answers."""
    by_id: dict[RowId, dict[str, PlannedRow]] = {}
    for row in rows:
        if "accuracy" in row.keys:
            own = by_id.setdefault(row.id.without("seed", "batch_size", "mode"), {})
            own.setdefault(row.keys["accuracy"], row)
    return [Setting(identity, tuple(own.values())) for identity, own in by_id.items()]


def against(own: Setting, other: Setting | None, why_not: str, name: str, results: Results) -> dict[str, Any]:
    """One setting against another: a row of `versus`.

    Args:
        own: The setting.
        other: What it is compared with, or None where there is nothing.
        why_not: Why there is nothing, for `note`.
        name: What it is compared with, for `versus` and `note`.
        results: The directory of both.

    Returns:
        The columns of `versus` that are known.
    """
    values = {column: getattr(own.id, column) for column in SETTING}
    row: dict[str, Any] = {**values, "versus": name, "verdict": NOT_COMPARABLE, "gmacs": _gmacs(own, results)}
    if other is None:
        return {**row, "note": why_not}
    row |= {"versus_gmacs": _gmacs(other, results), "note": ""}
    mine, theirs = _answers(own, results), _answers(other, results)
    if mine is None or theirs is None:
        return {**row, "note": "not measured"}
    read = (mine != UNREADABLE).all(axis=0) & (theirs != UNREADABLE).all(axis=0)
    if not read.any():
        return {**row, "note": "no image was read by both"}
    row |= _difference(mine[:, read] == RIGHT, theirs[:, read] == RIGHT)
    return {**row, "note": _unequal_compute(row["gmacs"], row["versus_gmacs"], name)}


def _counterpart(own: Setting, chosen: Sequence[Setting]) -> Setting | None:
    """What a setting is compared with; of several, the one with the same regime and site."""
    fitting = [
        one
        for one in chosen
        if one.id.model == own.id.model and one.id.dtype == own.id.dtype
        if one.id.method == PLAIN or one.place == own.place
    ]
    return max(fitting, key=lambda one: (one.id.regime == own.id.regime, one.id.site == own.id.site), default=None)


def _itself(own: Setting, chosen: Sequence[Setting], results: Results) -> Setting | None:
    """The same method in the same model with another schedule; of several, the one with the nearest MACs."""
    same = [one for one in chosen if one.id.without("schedule", "keep") == own.id.without("schedule", "keep")]
    cost = _gmacs(own, results) or 0.0
    return min(same, key=lambda one: abs((_gmacs(one, results) or 0.0) - cost), default=None)


def _why_not(own: Setting, chosen: Sequence[Setting], name: str) -> str:
    """Why a setting has no counterpart."""
    same_model = [one for one in chosen if one.id.model == own.id.model]
    if not same_model:
        return f"{name} was not measured in this model"
    schedules = dict.fromkeys(one.id.schedule for one in same_model)
    if own.id.schedule not in schedules:
        return f"{name} has another schedule, {' or '.join(schedules)}: not comparable at equal compute"
    return f"{name} was not measured at this keep"


def _difference(mine: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> dict[str, Any]:
    """The columns with numbers, from (seeds, images) answers of both."""
    differences = mine.mean(axis=0) - theirs.mean(axis=0)
    gained, lost = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    if len(mine) == len(theirs) == 1:
        interval, p = tango(gained, lost, differences.size), mcnemar(theirs[0], mine[0]).p
    else:
        interval, p = mean_interval(differences), score_p(differences)
    verdict = BETTER if interval.lo > 0 else WORSE if interval.hi < 0 else UNDECIDED
    return {
        "seeds": len(mine),
        "images": differences.size,
        "delta_top1": 100 * interval.estimate,
        "delta_lo": 100 * interval.lo,
        "delta_hi": 100 * interval.hi,
        "gained": gained,
        "lost": lost,
        "p": p,
        "verdict": verdict,
        "images_needed": images_to_settle(differences) if verdict == UNDECIDED else None,
    }


def _answers(setting: Setting, results: Results) -> NDArray[np.str_] | None:
    """(seeds, images) marks of the seeds that are complete; None without any."""
    found = [results.outcomes(row) for row in setting.rows]
    marks = [marks_of(text) for text in found if text]
    return np.stack(marks) if marks else None


def _gmacs(setting: Setting, results: Results) -> float | None:
    """Billions of MACs per image, the mean over seeds; None where they were not counted."""
    records = [results.record(KINDS["macs"], row) for row in setting.rows]
    totals = [record.total for record in records if record is not None]
    return float(np.mean(totals)) / 1e9 if totals else None


def _unequal_compute(own: float | None, other: float | None, name: str) -> str:
    if own is None or other is None:
        return "MACs were not counted: may not be at equal compute"
    if equal_cost(own, other):
        return ""
    amount = f"{100 * abs(own / other - 1):.0f} % {'more' if own > other else 'fewer'} MACs than {name}"
    return f"{amount}: not at equal compute"
