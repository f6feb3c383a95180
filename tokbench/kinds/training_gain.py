"""What a method gains from fine-tuning beyond what the plain model gains from the same fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tokbench.kinds.base import Column
from tokbench.names import PLAIN
from tokbench.outcomes import RIGHT, UNREADABLE, marks_of
from tokbench.stats.differences import mean_interval

if TYPE_CHECKING:
    from tokbench.results import PlannedRow, Results

GAIN = "gain_beyond_plain"

GAIN_COLUMNS = (
    Column(
        GAIN,
        heading="gain beyond plain",
        unit="points, fine-tuning",
        interval=GAIN,
        compared=True,
        decimals=1,
        only_methods=True,
        dropped=3,
    ),
    Column(f"{GAIN}_lo"),
    Column(f"{GAIN}_hi"),
)


def gain_columns(row: PlannedRow, results: Results) -> dict[str, float]:
    """The columns of a fine-tuned method's row, in points of top-1; empty for all other rows.

    (method after - method before) - (plain model after - plain model before), on the images that all four could read.
    Part of what fine-tuning adds is no merit of the method: the plain model gains it too. A method that needs training,
    and so has no row before it, has no such figure, nor has one without a plain model that was fine-tuned the same way.
    """
    plan = results.plan
    reference = plan.reference_of(row)
    if row.training is None or row.id.method == PLAIN or reference is None or reference.training is None:
        return {}
    four = (row, plan.before_training(row), reference, plan.plain_of(row))
    outcomes = [None if one is None else results.outcomes(one) for one in four]
    if None in outcomes:
        return {}
    marks = np.stack([marks_of(text or "") for text in outcomes])
    read = (marks != UNREADABLE).all(axis=0)
    if not read.any():
        return {}
    after, before, plain_after, plain_before = (marks[:, read] == RIGHT).astype(float)
    # Halved, because differences of differences reach from -2 to 2.
    gain = mean_interval(((after - before) - (plain_after - plain_before)) / 2)
    return {GAIN: 200 * gain.estimate, f"{GAIN}_lo": 200 * gain.lo, f"{GAIN}_hi": 200 * gain.hi}
