"""Numbers rounded to their meaningful digits: up to the first digit that the interval leaves uncertain."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tokbench.kinds.base import Column
from tokbench.results.columns import BY_INTERVAL

# Upper bounds: no measurement here is good to more decimals, however narrow its interval; a count is.
MAX_DECIMALS = 3
MAX_EXACT_DECIMALS = 5

RowValues = dict[Hashable, Any]
"""The values of one row of output by name; `NAME_half` is half the width of the interval of NAME.

A number goes by the name that the ends of its interval begin with: `delta` for `delta_top1`.
"""


def with_half_widths(means: pd.DataFrame) -> pd.DataFrame:
    """Add to numbers by name half the width of each one's interval, as far as it has one."""
    for name in [name for name in means if name in BY_INTERVAL]:
        column = BY_INTERVAL[str(name)]
        if column.interval:
            means[f"{name}_half"] = (means[f"{name}_hi"] - means[f"{name}_lo"]) / 2
        elif column.exact:
            means[f"{name}_half"] = 10 ** (np.floor(np.log10(means[name].max())) - 2)  # three digits of the largest
    return means


def decimals(row: RowValues, name: str) -> int:
    """Decimals up to the first uncertain digit; three significant digits where the uncertainty is not known."""
    column = BY_INTERVAL.get(name, Column(name))
    half = row.get(f"{name}_half", math.nan) if column.step is None else column.step
    uncertainty = half if half > 0 else abs(row[name]) / 100
    needed = math.ceil(-math.log10(uncertainty)) if uncertainty > 0 else 0
    return min(
        MAX_EXACT_DECIMALS if column.exact else MAX_DECIMALS,
        needed if column.decimals is None else max(needed, column.decimals),
    )


def number(value: float, digits: int) -> str:
    """The number with this many decimals, empty if it is NaN; negative `digits` round to tens and hundreds."""
    # Adding zero turns -0.0 into 0.0.
    return "" if math.isnan(value) else f"{round(value, digits) + 0.0:.{max(digits, 0)}f}"


def aligned(numbers: Sequence[str]) -> list[str]:
    """Numbers padded to the same width, with their decimal points below each other."""
    tails = [len(text) - len(text.partition(".")[0]) for text in numbers]
    padded = [text + " " * (max(tails) - tail) for text, tail in zip(numbers, tails, strict=True)]
    return [text.rjust(max(map(len, padded))) for text in padded]
