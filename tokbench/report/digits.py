"""Numbers rounded to their meaningful digits: up to the first digit that the interval leaves uncertain."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

TIMES = "\N{MULTIPLICATION SIGN}"
"""The unit of a speedup."""

# Upper bound for all columns: no measurement here is good to more decimals, however narrow its interval.
MAX_DECIMALS = 3
# Accuracies have one decimal even where their interval is wide: differences are taken over the same images, so they
# are known better than either accuracy.
MIN_DECIMALS = {"top1": 1, "top5": 1, "delta": 1}
# Counted columns have no interval, but a fixed resolution.
STEPS = {"gmacs_saved": 0.1, "share": 0.1, "peak_mib": 1.0}

RowValues = dict[Hashable, Any]
"""The values of one row of output by name; `NAME_half` is half the width of the interval of NAME."""


def decimals(row: RowValues, name: str) -> int:
    """Decimals up to the first uncertain digit; three significant digits where the uncertainty is not known."""
    half = STEPS[name] if name in STEPS else row[f"{name}_half"]
    uncertainty = half if half > 0 else abs(row[name]) / 100
    needed = math.ceil(-math.log10(uncertainty)) if uncertainty > 0 else 0
    return min(MAX_DECIMALS, max(needed, MIN_DECIMALS.get(name, needed)))


def number(value: float, digits: int) -> str:
    """The number with this many decimals, empty if it is NaN; negative `digits` round to tens and hundreds."""
    # Adding zero turns -0.0 into 0.0.
    return "" if math.isnan(value) else f"{round(value, digits) + 0.0:.{max(digits, 0)}f}"


def aligned(numbers: Sequence[str]) -> list[str]:
    """Numbers padded to the same width, with their decimal points below each other."""
    tails = [len(text) - len(text.partition(".")[0]) for text in numbers]
    padded = [text + " " * (max(tails) - tail) for text, tail in zip(numbers, tails, strict=True)]
    return [text.rjust(max(map(len, padded))) for text in padded]
