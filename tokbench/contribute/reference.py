"""Exact numbers against other results: what is counted, and how every image came out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tokbench.contribute.planned import described
from tokbench.contribute.problem import Name, Problem
from tokbench.kinds import KINDS
from tokbench.kinds.accuracy import ACCURACY
from tokbench.names import OFF_THE_SHELF
from tokbench.outcomes import RIGHT, marks_of
from tokbench.results import PlannedRow, Results
from tokbench.results.conditions import ANSWER_SETTINGS
from tokbench.run.machine import PACKAGES
from tokbench.weights_setting import weights_of

MAY_DIFFER = 0.02
"""The share of the images that may be right on one machine and wrong on another: near ties fall differently."""


def check_against(results: Results, references: Sequence[Results]) -> Iterator[Problem]:
    """Compare counts and answers with those of other results where these must be equal.

    Args:
        results: The contributed results.
        references: Other results.
    """
    for reference in references:
        others = {row.id: row for row in reference.plan.rows}
        for row in results.plan.rows:
            other = others.get(row.id)
            if other is not None and _same_model(row, results, reference):
                wrong = [*_counts(row, other, results, reference), *_answers(row, other, results, reference)]
                text = f"{described(row)}: {reference.directory} has other results: "
                yield from (Problem(Name.DIFFERS_FROM_REFERENCE, f"{text}{one}") for one in wrong)


def rows_without_reference(results: Results, references: Sequence[Results]) -> int:
    """How many rows no other results have, so that nothing shows whether their answers are right."""
    known = {row.id for reference in references for row in reference.plan.rows}
    return sum(row.id not in known for row in results.plan.rows)


def _same_model(row: PlannedRow, one: Results, two: Results) -> bool:
    """Whether a row has the same model with the same weights in both."""
    name = row.id.model
    first, second = (
        (results.plan.models.get(name), results.plan.suite.img_size, weights_of(results.plan.suite.weights, name))
        for results in (one, two)
    )
    return first == second


def _counts(row: PlannedRow, other: PlannedRow, one: Results, two: Results) -> Iterator[str]:
    """Counts of methods that do not depend on the images."""
    same_packages = all(one.environment["versions"][name] == two.environment["versions"][name] for name in PACKAGES)
    here, there = one.record(KINDS["macs"], row), two.record(KINDS["macs"], other)
    if row.adaptive or not same_packages or here is None or there is None:
        return
    for name in ("total", "method", "tokens"):
        if getattr(here, name) != getattr(there, name):
            yield f"MACs, {name}: {getattr(here, name)} and {getattr(there, name)}"


def _answers(row: PlannedRow, other: PlannedRow, one: Results, two: Results) -> Iterator[str]:
    """Answers on the same images: all equal under equal conditions, and nearly all on other machines."""
    if one.plan.images is None or two.plan.images is None or one.plan.images.identity != two.plan.images.identity:
        return
    equal = one.images == two.images and row.id.regime == OFF_THE_SHELF and _settings(one) == _settings(two)
    for kind in (ACCURACY, KINDS["agreement"]):
        first, second = (
            marks_of("".join(record.outcomes for record in results.shards_of(kind, which)))
            for results, which in ((one, row), (two, other))
        )
        if not first.size or first.size != second.size:
            continue
        if equal or row.keys[kind.name] == other.keys[kind.name]:
            differing = int(np.sum(first != second))
            if differing:
                yield f"{kind.name} of {differing} images, under the same conditions"
        elif kind is ACCURACY and row.id.regime == OFF_THE_SHELF:
            share = float(np.mean((first == RIGHT) != (second == RIGHT)))
            if share > MAY_DIFFER:
                yield f"{100 * share:.1f} % of the images came out otherwise, more than another machine explains"


def _settings(results: Results) -> dict[str, object]:
    """What answers depend on to the last bit."""
    environment, suite = results.environment, results.plan.suite
    known = {**environment["versions"], **environment, "dtype": suite.dtype, "accuracy_batch": suite.accuracy_batch}
    return {name: known.get(name) for name in ANSWER_SETTINGS}
