"""Numbers cut to the digits that they deserve: up to the first one in doubt."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

# No measurement here deserves more decimals, however narrow its interval. Accuracies have one, however wide theirs:
# images are paired, so a difference is surer than either side. What is counted has no interval but steps.
MAX_DECIMALS = 3
MIN_DECIMALS = {"top1": 1, "top5": 1, "delta": 1}
STEPS = {"gmacs_saved": 0.1, "share": 0.1, "peak_mib": 1.0}

Line = dict[Hashable, Any]
"""The numbers of one line by name, and as `NAME_half` half the width of each one's interval."""


def decimals(line: Line, name: str) -> int:
    """Decimals up to the first digit in doubt; three significant digits where nothing says which that is."""
    half = STEPS[name] if name in STEPS else line[f"{name}_half"]
    doubt = half if half > 0 else abs(line[name]) / 100
    needed = math.ceil(-math.log10(doubt)) if doubt > 0 else 0
    return min(MAX_DECIMALS, max(needed, MIN_DECIMALS.get(name, needed)))


def number(value: float, digits: int) -> str:
    """The number with so many decimals; negative ones round to tens and hundreds."""
    # Adding zero keeps "-0.0" away.
    return "" if math.isnan(value) else f"{round(value, digits) + 0.0:.{max(digits, 0)}f}"


def aligned(numbers: Sequence[str]) -> list[str]:
    """Numbers of one width with their decimal points below each other."""
    tails = [len(text) - len(text.partition(".")[0]) for text in numbers]
    padded = [text + " " * (max(tails) - tail) for text, tail in zip(numbers, tails, strict=True)]
    return [text.rjust(max(map(len, padded))) for text in padded]
