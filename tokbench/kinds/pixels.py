"""How much better a method is than the plain model with fewer pixels, at equal compute and at equal time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd

from tokbench.kinds.base import Column
from tokbench.names import FINE_TUNED, PLAIN
from tokbench.outcomes import RIGHT, UNREADABLE, marks_of
from tokbench.rows import plain_models, with_fewer_pixels
from tokbench.stats.equal_cost import over_mixture
from tokbench.stats.proportions import Interval

COMPUTE, TIME = "over_pixels", "over_pixels_time"

PIXEL_COLUMNS = tuple(
    column
    for name, unit, dropped in ((COMPUTE, "points, equal MACs", 4), (TIME, "points, equal time", 5))
    for column in (
        Column(
            name,
            heading="vs fewer pixels",
            unit=unit,
            interval=name,
            compared=True,
            decimals=1,
            only_methods=True,
            dropped=dropped,
        ),
        Column(f"{name}_lo"),
        Column(f"{name}_hi"),
    )
)


def over_pixels(table: pd.DataFrame, outcomes: Sequence[str | None]) -> dict[str, pd.Series]:
    """The columns `PIXEL_COLUMNS`: points of top-1 above the plain model with fewer pixels, on the same images.

    A method's row is compared with a mixture of the two neighbouring resolutions that costs exactly the same, see
    `tokbench.stats.equal_cost.mixture`; the full resolution is one of them. Compute is in MACs. Time is relative to
    the plain model, 1/speedup, as both were measured in pairs with it; the interval also covers that of the speedups.

    The columns are missing for the plain models themselves, for fine-tuned methods, where accuracy or cost were not
    measured, and where a row costs less than the smallest resolution or more than the full one.

    Args:
        table: The rows of a comparison, with `gmacs`, and `speedup` and its interval.
        outcomes: Each row's outcomes, None where they are not complete.
    """
    found: dict[Hashable, dict[str, float]] = {}
    marks = pd.Series([None if text is None else marks_of(text) for text in outcomes], index=table.index, dtype=object)
    costs = {COMPUTE: _compute(table), TIME: _time(table)}
    answered = table.assign(marks=marks, smaller=with_fewer_pixels(table), full=plain_models(table), **costs)
    for _, block in answered[marks.notna()].groupby(["model", "dtype", "batch_size", "mode"], sort=False, dropna=False):
        if not block["full"].any() or not block["smaller"].any():
            continue
        for name in costs:
            resolutions = _no_dearer(pd.concat([block[block["full"]].head(1), block[block["smaller"]]]), name)
            for index, row in block[block["method"].ne(PLAIN) & block["regime"].ne(FINE_TUNED)].iterrows():
                interval = _over(row, resolutions, name)
                if interval is not None:
                    ends = {name: interval.estimate, f"{name}_lo": interval.lo, f"{name}_hi": interval.hi}
                    found.setdefault(index, {}).update({column: 100 * value for column, value in ends.items()})
    names = [column.name for column in PIXEL_COLUMNS]
    filled = pd.DataFrame.from_dict(found, orient="index").reindex(index=table.index, columns=names).astype(float)
    return {name: filled[name] for name in names}


def _compute(table: pd.DataFrame) -> pd.Series:
    """Each row's MACs, which are counted exactly; None where they were not."""
    counts = [None if pd.isna(gmacs) else Interval(*3 * [float(gmacs)]) for gmacs in table["gmacs"]]
    return pd.Series(counts, index=table.index, dtype=object)


def _time(table: pd.DataFrame) -> pd.Series:
    """Each row's time as a fraction of the plain model's; None where it was not timed."""
    speedups = table[["speedup", "speedup_hi", "speedup_lo"]].astype(float).to_numpy()
    times = [None if np.isnan(row).any() else Interval(*(1 / end for end in row.tolist())) for row in speedups]
    # The plain model's time is that of the plain model; what was measured of the two is noise.
    exact = [
        Interval(1.0, 1.0, 1.0) if full and time else time
        for full, time in zip(plain_models(table), times, strict=True)
    ]
    return pd.Series(exact, index=table.index, dtype=object)


def _no_dearer(resolutions: pd.DataFrame, name: str) -> pd.DataFrame:
    """The resolutions that cost no more than the first, which is the full one; none where its cost is not known."""
    most = resolutions[name].iloc[0]
    return resolutions[
        [most is not None and one is not None and one.estimate <= most.estimate for one in resolutions[name]]
    ]


def _over(row: pd.Series, resolutions: pd.DataFrame, name: str) -> Interval | None:
    """A row against the resolutions at equal cost, on the images that all could read."""
    if row[name] is None or len(resolutions) < 2:
        return None
    marks = np.stack([row["marks"], *resolutions["marks"]])
    right = (marks[:, (marks != UNREADABLE).all(axis=0)] == RIGHT).astype(float)
    return over_mixture(row[name], right[0], list(resolutions[name]), right[1:]) if right.size else None
