"""One method against the others: paired differences in top-1 on the same images, at the same setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tokbench.errors import UserError, did_you_mean
from tokbench.kinds import KINDS
from tokbench.names import PLAIN
from tokbench.notation import parse_call, split_parameters
from tokbench.outcomes import RIGHT, UNREADABLE, marks_of
from tokbench.results.plan import Plan, PlannedRow
from tokbench.rows import RowId
from tokbench.stats.differences import images_to_settle, mean_interval, score_p
from tokbench.stats.pareto import equal_cost
from tokbench.stats.proportions import mcnemar, tango
from tokbench.values import unquoted, value_text

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
        by_budget = self.id.schedule.startswith("budget(")
        return self.id.schedule, None if by_budget else self.id.keep


def versus(results: Results, *methods: str) -> pd.DataFrame:
    """All methods of a directory against one of them, or against each of several.

    Rows are paired if model, schedule and keep agree; with a budget, model and budget. The plain model and its
    baselines with fewer pixels have no schedule, so that all rows of their model are compared with them. Where the MACs
    differ by more than 1 %, `note` says so.

    Two rows of one seed each have Tango's interval and McNemar's exact p. With several seeds, an image counts once,
    with the mean of its answers over the seeds; interval and p are those of a mean (`mean_interval`, `score_p`). They
    are about the measured seeds, whose spread is `top1_sd` in the main table.

    Args:
        results: The directory.
        methods: As in `evit`, `score_pruning(score=cls)` or `none(img_size=192)`. Parameters may be left out where the
            directory has one variant of the method, or one with the defaults.

    Returns:
        A row for each setting of another method: `SETTING`, and
            seeds: How many of its rows were averaged.
            versus: The method that it is compared with.
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
        UserError: A method is not in the directory, or accuracy was not measured.
    """
    rows = [row for method in methods for row in _versus(results, method)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(TYPES)


def _versus(results: Results, method: str) -> list[dict[str, Any]]:
    """The rows against one method."""
    reference = rows_of(results.plan, method, str(results.directory))
    _check_accuracy(results.plan, str(results.directory))
    name = str(parse_call(method))
    settings = _settings(results.plan.rows)
    chosen = [one for one in settings if one.rows[0] in reference and _answers(one, results) is not None]
    if not chosen:
        raise UserError(f"{results.directory} has no answers of {name} yet: run the same tokbench compare again")
    is_plain = reference[0].id.method == PLAIN
    others = [one for one in settings if one.rows[0] not in reference and (is_plain or one.id.method != PLAIN)]
    return [_against(one, chosen, name, results) for one in others]


def rows_of(plan: Plan, method: str, where: str) -> list[PlannedRow]:
    """The rows of a plan that a method's text stands for.

    Args:
        plan: What is to be measured, or was.
        method: As in `evit` or `score_pruning(score=cls)`.
        where: What has the plan, for messages.

    Raises:
        UserError: There is no such method, or several variants of it.
    """
    call = parse_call(method)
    if call.positional:
        raise UserError(f"{method}: name its parameters, as in {call.name}(parameter=value)")
    own = [row for row in plan.rows if row.id.method == call.name]
    if not own:
        known = list(dict.fromkeys(row.id.method for row in plan.rows))
        raise UserError(f"{where} has no method '{call.name}': {did_you_mean(call.name, known)}")
    variants = {row.id.params: split_parameters(row.id.params) for row in own}
    fitting = [text for text, has in variants.items() if _fits(call.named, has)]
    if len(fitting) > 1:
        info = plan.methods.get(call.name)
        assumed = dict(info.defaults) if info else {}
        fitting = [
            text for text in fitting if _fits({**assumed, **call.named}, variants[text], exactly=True)
        ] or fitting
    if len(fitting) != 1:
        listed = " or ".join(_short_names(call.name, [variants[text] for text in fitting or variants]))
        raise UserError(f"{where} has {'several' if fitting else 'no'} {call}: choose {listed}")
    return [row for row in own if row.id.params == fitting[0]]


def check_versus(plan: Plan, methods: Sequence[str]) -> None:
    """Check, before anything is measured, that all methods can be compared with these.

    Raises:
        UserError: A method is not in the plan or will not be measured, or accuracy is not in it.
    """
    for method in methods:
        reason = next((row.skipped or row.failed for row in rows_of(plan, method, THIS)), "")
        if reason:
            raise UserError(f"nothing can be compared with {method}: {reason}")
    _check_accuracy(plan, THIS)


def _check_accuracy(plan: Plan, where: str) -> None:
    if not any("accuracy" in row.keys for row in plan.rows):
        raise UserError(f"{where} has no accuracies to compare: measure them with --only macs,accuracy and --data")


def _short_names(method: str, variants: Sequence[dict[str, str]]) -> list[str]:
    """The variants as the user can write them, with those parameters that differ."""
    names = dict.fromkeys(name for has in variants for name in has)
    differing = [name for name in names if len(variants) == 1 or len({has.get(name) for has in variants}) > 1]
    texts = [",".join(f"{name}={has[name]}" for name in differing if name in has) for has in variants]
    return [f"'{method}({text})'" if text else method for text in texts]


def _fits(wanted: dict[str, str], has: dict[str, str], *, exactly: bool = False) -> bool:
    """Whether a variant's parameters have the wanted values; `exactly` allows no others."""
    same = all(name in has and _same(value, has[name]) for name, value in wanted.items())
    return same and (not exactly or set(has) == set(wanted))


def _same(value: str, shown: str) -> bool:
    """Whether a value as written by the user is the one that the table shows: `True` is `true`, `0.50` is `0.5`."""
    if value in (shown, unquoted(shown)) or value_text(value) == shown or value.lower() == shown:
        return True
    try:
        return float(value) == float(shown)
    except ValueError:
        return False


def _settings(rows: Sequence[PlannedRow]) -> list[Setting]:
    """The settings whose accuracy is wanted, in the table's order; batch sizes and modes share their answers."""
    by_id: dict[RowId, dict[str, PlannedRow]] = {}
    for row in rows:
        if "accuracy" in row.keys:
            own = by_id.setdefault(row.id.without("seed", "batch_size", "mode"), {})
            own.setdefault(row.keys["accuracy"], row)
    return [Setting(identity, tuple(own.values())) for identity, own in by_id.items()]


def _against(own: Setting, chosen: Sequence[Setting], name: str, results: Results) -> dict[str, Any]:
    """A row of the result."""
    values = {column: asdict(own.id)[column] for column in SETTING}
    row: dict[str, Any] = {**values, "versus": name, "verdict": NOT_COMPARABLE, "gmacs": _gmacs(own, results)}
    other = _counterpart(own, chosen)
    if other is None:
        return {**row, "note": _why_not(own, chosen, name)}
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
