"""Where a method wins and where it loses: its settings in a run against what else could have been done.

Each setting is compared with the plain model with fewer pixels at equal compute, with `random_selection`, and with the
best other method that costs no more; the last two at the same schedule and keep. All differences are paired, on the
same images. The best other method is found on these images too, so that chance makes it look a little better.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from tokbench.names import FINE_TUNED, PLAIN
from tokbench.report.labels import cell_text, labels
from tokbench.results import Results
from tokbench.results.versus import SETTING, Setting, against, settings_of
from tokbench.schedule_text import names_cost
from tokbench.stats.pareto import equal_cost

RANDOM = "random_selection"
PIXELS, OTHERS, TRAINING = "over_pixels", "best other", "gain_beyond_plain"
SMALLEST = 0.05  # points; less is 0.0 in a text


@dataclass(frozen=True)
class Difference:
    """Points of top-1 above something else, with the 95 % interval.

    Attributes:
        points: The difference.
        lo: Lower limit.
        hi: Upper limit.
        other: The method that it is compared with; empty for the plain model.
        unequal: Whether the two differ in compute by more than 1 %.
    """

    points: float
    lo: float
    hi: float
    other: str = ""
    unequal: bool = False

    @property
    def decided(self) -> bool:
        """Whether the interval is without 0."""
        return self.lo > 0 or self.hi < 0

    def __str__(self) -> str:
        """As in `6.1 [3.4, 9.6]`."""
        return f"{_rounded(self.points)} [{_rounded(self.lo)}, {_rounded(self.hi)}]"


@dataclass(frozen=True)
class Standing:
    """One setting of a method in a run; seeds count by their mean.

    Attributes:
        setting: The setting as text: `keep 0.5`, `budget(0.7)`; with the model where the run has several.
        saved: Percent of the plain model's MACs that it saves.
        top1: Percent.
        against: The differences, by `delta` (to the plain model), `PIXELS`, `RANDOM`, `OTHERS` and `TRAINING`; without
            those that were not measured.
    """

    setting: str
    saved: float
    top1: float
    against: dict[str, Difference]


def standings(run: Results) -> dict[str, list[Standing]]:
    """The settings of each method of a run, by the method's name; empty where no accuracy was measured."""
    rows = run.table[run.table["status"].eq("ok") & run.table["top1"].notna() & run.table["method"].ne(PLAIN)]
    if rows.empty:
        return {}
    measured = {_key(asdict(one.id)): one for one in settings_of(run.plan.rows)}
    # Seeds are several rows of one setting; batch sizes and modes share their answers.
    first = rows.drop_duplicates(list(SETTING))
    first = first.assign(
        label=_labels(first),
        mean=rows.groupby(list(SETTING), dropna=False)["top1"].transform("mean"),
        place=_places(first),
    )
    differs = first.groupby("method")[["regime", "site", "schedule"]].nunique().gt(1)
    models = first["model"].nunique() > 1
    found: dict[str, list[Standing]] = {}
    for _, peers in first.groupby(["model", first["regime"].eq(FINE_TUNED), "place"], sort=False, dropna=False):
        ranked = peers.sort_values("mean", ascending=False, kind="stable").to_dict("records")
        for row in peers.to_dict("records"):
            rivals = {
                RANDOM: next((one for one in ranked if one["method"] == RANDOM != row["method"]), None),
                OTHERS: next((one for one in ranked if _could_replace(one, row)), None),
            }
            paired = {
                name: _paired(measured[_key(row)], measured[_key(rival)], run)
                for name, rival in rivals.items()
                if rival is not None
            }
            text = ", ".join(_parts(row, models, differs.loc[row["method"]]))
            standing = Standing(text, row["gmacs_saved"], row["mean"], {**_in_the_table(row), **paired})
            found.setdefault(row["method"], []).append(standing)
    return found


def _could_replace(other: Mapping[Hashable, Any], row: Mapping[Hashable, Any]) -> bool:
    """Whether this is another method that costs no more; within 1 % costs count as equal."""
    cheaper = other["gmacs"] < row["gmacs"] or equal_cost(other["gmacs"], row["gmacs"])
    return bool(other["method"] != row["method"] and cheaper)


def sentence(rows: Sequence[Standing], column: str, opening: str) -> str:
    """In how many settings a method is above and below something else, its best and its worst; empty without any.

    Args:
        rows: A method's settings.
        column: A key of `Standing.against`.
        opening: What it is compared with, as in `Against the plain model with fewer pixels`.
    """
    compared = [(row.setting, row.against[column]) for row in rows if column in row.against]
    if not compared:
        return ""
    above = sum(one.lo > 0 for _, one in compared)
    below = sum(one.hi < 0 for _, one in compared)
    ranked = sorted(compared, key=lambda one: one[1].points)
    if len(compared) == 1:
        return f"{opening}: {_at(*ranked[0])}."
    counts = f"above in {above}, below in {below}, not decided in {len(compared) - above - below}"
    return f"{opening}, in {len(compared)} settings: {counts}. Best: {_at(*ranked[-1])}. Worst: {_at(*ranked[0])}."


def _at(setting: str, one: Difference) -> str:
    other = f" against `{one.other}`" if one.other not in ("", RANDOM) else ""
    return f"{setting}: {one} points{other}{'' if one.decided else ', not decided'}"


def _labels(rows: pd.DataFrame) -> pd.Series:
    """The name of each row among those of its model: the method, with the parameters in which its rows differ."""
    return pd.concat([pd.Series(labels(part), part.index) for _, part in rows.groupby("model", sort=False)])


def _places(rows: pd.DataFrame) -> list[str]:
    """Schedule and keep as text; a budget's keep is solved for each method and is left out."""
    return [
        cell_text(row["schedule"])
        if names_cost(row["schedule"]) or pd.isna(row["keep"])
        else f"{row['schedule']} keep {row['keep']:g}"
        for row in rows.to_dict("records")
    ]


def _parts(row: Mapping[Hashable, Any], models: bool, differs: Mapping[str, bool]) -> Iterator[str]:
    """What distinguishes a setting from the method's others.

    Args:
        row: The row, with its `label`.
        models: Whether the run has several models.
        differs: In which columns the method's rows differ.
    """
    keep = "" if names_cost(row["schedule"]) or pd.isna(row["keep"]) else f"keep {row['keep']:g}"
    if models:
        yield row["model"]
    if parameters := row["label"].removeprefix(row["method"]).strip("()"):
        yield parameters
    yield from (row[name] for name in ("regime", "site") if differs[name])
    if differs["schedule"] or not keep:
        yield row["schedule"]
    if keep:
        yield keep


def _key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(None if pd.isna(row[name]) else row[name] for name in SETTING)


def _paired(own: Setting, rival: Setting, run: Results) -> Difference:
    row = against(own, rival, "", rival.id.method, run)
    points = (row["delta_top1"], row["delta_lo"], row["delta_hi"])
    return Difference(*points, rival.id.method, unequal=bool(row["note"]))


def _in_the_table(row: Mapping[Hashable, Any]) -> dict[str, Difference]:
    """The differences that the table has, without those that are missing."""
    columns = {"delta": ("delta_top1", "delta"), PIXELS: (PIXELS, PIXELS), TRAINING: (TRAINING, TRAINING)}
    return {
        name: Difference(row[column], row[f"{limits}_lo"], row[f"{limits}_hi"])
        for name, (column, limits) in columns.items()
        if not math.isnan(row.get(column, math.nan))
    }


def _rounded(value: float) -> str:
    return f"{0.0 if abs(value) < SMALLEST else value:.1f}"
