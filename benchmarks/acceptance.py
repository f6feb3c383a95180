"""For which counts a 95 % interval contains the true value: for the intervals that tokbench uses and for others.

Each function takes counts `up` and `down` among `n` images (right and wrong predictions, or flips to right and to
wrong), of broadcastable shapes, and the true value: the probability of `up`, or that of `up` minus that of `down`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tokbench.stats.proportions import tango_score

Z = float(stats.norm.ppf(0.975))
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Contains = Callable[[Floats, Floats, int, float], Booleans]


def wilson(up: Floats, down: Floats, n: int, truth: float) -> Booleans:
    return np.asarray(np.abs(up - n * truth) <= Z * np.sqrt(n * truth * (1 - truth)))


def wilson_corrected(up: Floats, down: Floats, n: int, truth: float) -> Booleans:
    return np.asarray(np.abs(up - n * truth) - 0.5 <= Z * np.sqrt(n * truth * (1 - truth)))


def agresti_coull(up: Floats, down: Floats, n: int, truth: float) -> Booleans:
    trials = n + Z**2
    centre = (up + Z**2 / 2) / trials
    return np.abs(centre - truth) <= Z * np.sqrt(centre * (1 - centre) / trials)


def clopper_pearson(up: Floats, down: Floats, n: int, truth: float) -> Booleans:
    return (stats.binom.cdf(up, n, truth) > 0.025) & (stats.binom.sf(up - 1, n, truth) > 0.025)


def tango(up: Floats, down: Floats, n: int, truth: float) -> Booleans:
    return np.abs(tango_score(up, down, n, truth)) <= Z


def tango_corrected(up: Floats, down: Floats, n: int, truth: float) -> Booleans:
    # The distance to the true value is reduced by half a flip; the variance is not changed.
    distance = np.abs(up - down - n * truth)
    return np.abs(tango_score(up, down, n, truth)) * np.maximum(distance - 0.5, 0) <= Z * distance


def bonett_price(up: Floats, down: Floats, n: int, truth: float) -> Booleans:
    gained, lost = (up + 1) / (n + 2), (down + 1) / (n + 2)
    return np.abs(gained - lost - truth) <= Z * np.sqrt((gained + lost - (gained - lost) ** 2) / (n + 2))


# tokbench uses the first interval of each group.
INTERVALS: dict[str, dict[str, Contains]] = {
    "top1": {
        "Wilson": wilson,
        "Wilson with continuity correction": wilson_corrected,
        "Agresti-Coull": agresti_coull,
        "Clopper-Pearson": clopper_pearson,
    },
    "difference": {
        "Tango": tango,
        "Tango with half a flip's correction": tango_corrected,
        "Bonett-Price": bonett_price,
    },
}
