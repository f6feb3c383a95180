"""Statistics of differences per image, each in [-1, 1]: an interval of their mean, and how many images settle its sign.

An image's difference is -1, 0 or 1 where two answers are compared, and something between where one side is a mean over
seeds or a mixture of two models. Means are fractions; tables show them in points.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tokbench.stats.proportions import Interval


def mean_interval(differences: ArrayLike, level: float = 0.95) -> Interval:
    """The mean of differences per image, with an adjusted Wald interval.

    The limits are those of the usual normal interval after one image with a difference of 1 and one with -1 were added,
    so the interval has a positive width even if all images agree. For differences of -1, 0 and 1 it is Bonett and
    Price's interval of paired proportions.

    Args:
        differences: (n,) one for each image, in [-1, 1].
        level: The confidence level.

    Returns:
        The mean in [-1, 1], without the added images, and its interval.

    Raises:
        ValueError: There is no image, or a difference is outside [-1, 1].

    Source: Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", Journal of Educational and Behavioral Statistics 37; recommended beside Tango's by Fagerland, Lydersen
    and Laake 2014.
    """
    values = _checked(differences)
    total, squares, n = float(values.sum()), float(np.square(values).sum()), values.size + 2
    centre = total / n
    half = float(stats.norm.ppf((1 + level) / 2)) * math.sqrt(((squares + 2) / n - centre * centre) / n)
    return Interval(total / values.size, max(-1.0, centre - half), min(1.0, centre + half))


def score_p(differences: ArrayLike) -> float:
    """Two-sided p of the score test that the mean difference is 0, from the normal distribution.

    For differences of -1, 0 and 1 it is McNemar's test without its exactness.

    Args:
        differences: (n,) one for each image, in [-1, 1].

    Raises:
        ValueError: There is no image, or a difference is outside [-1, 1].
    """
    values = _checked(differences)
    squares = float(np.square(values).sum())
    return float(2 * stats.norm.sf(abs(values.sum()) / math.sqrt(squares))) if squares else 1.0


def images_to_settle(differences: ArrayLike, level: float = 0.95) -> int | None:
    """The smallest number of images at which the sign of the mean would be sure, if more images were like these.

    With N images of the same mean d and mean square s, the score test rejects a difference of 0 where
    d·N > z·sqrt(s·N). For answers that are right or wrong this is where Tango's interval no longer contains 0, as at 0
    its score is (gained - lost)/sqrt(gained + lost).

    Args:
        differences: (n,) one for each image, in [-1, 1].
        level: The confidence level.

    Returns:
        N; None if the mean is 0, as no number of such images would settle it.

    Raises:
        ValueError: There is no image, or a difference is outside [-1, 1].
    """
    values = _checked(differences)
    mean, square = float(values.mean()), float(np.square(values).mean())
    if math.isclose(mean, 0, abs_tol=1e-12):
        return None
    z = float(stats.norm.ppf((1 + level) / 2))
    return math.floor(z * z * square / (mean * mean)) + 1


def _checked(differences: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(differences, dtype=float)
    if values.ndim != 1 or values.size == 0 or not np.all(np.abs(values) <= 1):
        raise ValueError(f"expected a non-empty sequence of differences in [-1, 1], got shape {values.shape}")
    return values
