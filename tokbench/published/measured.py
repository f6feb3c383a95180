"""The measured rows of several runs, and the one that is nearest to a published number."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tokbench.names import FINE_TUNED, PLAIN
from tokbench.notation import split_parameters
from tokbench.published.claims import PLAIN_REGIME, SETTING, full_name, load_claims
from tokbench.results import MethodInfo, Results
from tokbench.rows import plain_models, with_fewer_pixels

REGIME = "regime"
SCHEDULE = "schedule"
PARAMETERS = "parameters"


@dataclass(frozen=True)
class MeasuredRow:
    """What was measured of one setting, over its seeds.

    Attributes:
        run: The name of the results directory.
        model: With the tag of its weights.
        method: `none` for the plain model.
        parameters: All of the method's parameters, as text.
        defaults: Those that a claim means where it names none.
        regime: As in the table; `plain` for the plain model.
        schedule: As in the table.
        keep: None where the schedule fixes the counts.
        gmacs: Mean over the seeds.
        top1: Mean over the seeds, in percent.
        images: How many images `top1` is of.
        delta: Points gained against the plain model on the same images, mean over the seeds, or missing (NaN).
        delta_lo: The lower end of its 95 % interval, the lowest of the seeds.
        delta_hi: The upper end, the highest of the seeds.
        plain_top1: The plain model's top-1 in the same run, or missing (NaN).
    """

    run: str
    model: str
    method: str
    parameters: Mapping[str, str]
    defaults: Mapping[str, str]
    regime: str
    schedule: str
    keep: float | None
    gmacs: float
    top1: float
    images: int
    delta: float
    delta_lo: float
    delta_hi: float
    plain_top1: float

    def __str__(self) -> str:
        """The setting in a few words, as in `tome stages(at=3-6-9) keep 0.7`."""
        keep = "" if self.keep is None or self.method == PLAIN else f"keep {self.keep:g}"
        return " ".join(filter(None, (self.method, self.schedule, keep)))


def measured_rows(runs: Iterable[Results]) -> list[MeasuredRow]:
    """The rows of ImageNet-1k's classes that were measured, without the plain models with fewer pixels."""
    return [row for run in runs for row in _rows(run)]


def nearest(claim: Mapping[Hashable, Any], rows: Sequence[MeasuredRow]) -> MeasuredRow | None:
    """The row of a claim's model and method that differs from it in the fewest settings, then least in compute.

    Of several that differ equally, it is the one of the most images.
    """
    same = [row for row in rows if (row.model, row.method) == (claim["model"], claim["method"])]
    return min(same, key=lambda row: (len(differences(claim, row)), _distance(claim, row), -row.images), default=None)


def differences(claim: Mapping[Hashable, Any], row: MeasuredRow) -> dict[str, str]:
    """The settings in which a row differs from a claim of the same method: by name, how."""
    found = {}
    if {**row.defaults, **split_parameters(claim["params"])} != row.parameters:
        found[PARAMETERS] = f"the parameters are {claim['params'] or 'the defaults'}"
    if claim["regime"] != row.regime:
        found[REGIME] = f"published {claim['regime']}, measured {row.regime}"
    keep = None if pd.isna(claim["keep"]) else float(claim["keep"])
    if row.method != PLAIN and (claim["schedule"], keep) != (row.schedule, row.keep):
        found[SCHEDULE] = "the token counts are others" if claim["schedule"] else "the token counts are not published"
    return found


def _rows(run: Results) -> list[MeasuredRow]:
    plan, table = run.plan, run.table
    if plan.images is not None and plan.images.own_classes:
        return []
    claims = load_claims()
    measured = table[table["status"].eq("ok") & ~with_fewer_pixels(table)]
    plain = measured[plain_models(measured)].groupby("model")["top1"].first()
    by_setting = measured.drop_duplicates([*SETTING, "seed"]).groupby(SETTING, sort=False, dropna=False)
    settings = by_setting.agg(
        gmacs=("gmacs", "mean"),
        top1=("top1", "mean"),
        images=("images", "min"),
        delta=("delta_top1", "mean"),
        delta_lo=("delta_lo", "min"),
        delta_hi=("delta_hi", "max"),
    ).reset_index()
    return [
        MeasuredRow(
            run=run.directory.name,
            model=full_name(row["model"], plan, claims),
            method=row["method"],
            parameters=split_parameters(row["params"]),
            defaults=plan.methods.get(row["method"], MethodInfo()).defaults,
            regime=PLAIN_REGIME if row["method"] == PLAIN and row["regime"] != FINE_TUNED else row["regime"],
            schedule=row["schedule"],
            keep=None if pd.isna(row["keep"]) else float(row["keep"]),
            images=0 if pd.isna(row["images"]) else int(row["images"]),
            plain_top1=float(plain.get(row["model"], math.nan)),
            **{name: float(row[name]) for name in ("gmacs", "top1", "delta", "delta_lo", "delta_hi")},
        )
        for row in settings.to_dict("records")
    ]


def _distance(claim: Mapping[Hashable, Any], row: MeasuredRow) -> float:
    """How far the compute is apart, as a ratio's logarithm; infinite where one of them is not known."""
    known: Any = claim["gmacs"]
    if pd.isna(known) or math.isnan(row.gmacs):
        return math.inf
    return abs(math.log(row.gmacs / known))
