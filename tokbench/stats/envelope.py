"""Compute saved at equal accuracy across models of several sizes, with an interval over images.

The envelope of some points (compute, accuracy) is the line through those that no other point beats, where beating is
costing no more and being at least as accurate. Between two neighbours it is straight, as between the keeps of one
method. A large model that is reduced may reach the accuracy of a small one with less compute: then its envelope lies to
the left of that of the plain models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokbench.stats.proportions import Interval

RESAMPLES = 2000
SEED = 0
BLOCK = 100  # resamples held in memory at once
DECIMALS = 12  # of accuracies: averages over seeds that are equal must not differ by rounding errors

Floats = NDArray[np.float64]


def least_compute(compute: ArrayLike, accuracy: ArrayLike, target: ArrayLike) -> Floats:
    """The compute at which an envelope reaches an accuracy.

    Args:
        compute: (points,), in any unit.
        accuracy: (..., points), in any unit: several envelopes over the same points.
        target: (...), the accuracy to reach on each envelope.

    Returns:
        (...), in the unit of compute: infinite where no point is that accurate, and the compute of the cheapest point
        where that one is more accurate already.

    Raises:
        ValueError: There is no point, or the shapes do not fit.
    """
    unordered = np.asarray(compute, dtype=float)
    order, costs = np.argsort(unordered), np.unique(unordered)
    levels, wanted = np.asarray(accuracy, dtype=float), np.asarray(target, dtype=float)
    if not order.size or levels.shape != (*wanted.shape, order.size):
        raise ValueError(f"got compute {np.shape(compute)}, accuracy {levels.shape} and target {wanted.shape}")
    starts = np.searchsorted(unordered[order], costs)  # points of the same compute count as the best of them
    best = np.maximum.accumulate(np.maximum.reduceat(levels[..., order], starts, axis=-1), axis=-1)
    enough = best >= wanted[..., None]
    after = np.argmax(enough, axis=-1)  # the cheapest point that is accurate enough
    level_after = _at(best, after)
    level_before = _at(best, np.maximum(after - 1, 0))
    before = np.argmax(best >= level_before[..., None], axis=-1)  # the cheapest of its accuracy
    rise = np.where(level_after > level_before, level_after - level_before, 1.0)
    way_back = np.where(after > 0, (level_after - wanted) / rise, 0.0)
    reached = costs[after] - way_back * (costs[after] - costs[before])
    return np.where(enough.any(axis=-1), reached, np.inf)


def saved_compute(
    plain_compute: ArrayLike,
    plain_right: ArrayLike,
    compute: ArrayLike,
    right: ArrayLike,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> list[Interval]:
    """How much less compute a method's envelope needs than the plain models', at the accuracy of each plain model.

    The plain models also belong to the method's envelope: using no method is a choice. The saving is therefore 0 where
    the method does not help, and not negative unless a smaller plain model is more accurate. Where even the method's
    cheapest point is more accurate than asked for, the saving is the one of that point, and the true one may be larger.

    The interval is the percentile bootstrap's over images: a resample has the same images for all models and keeps, and
    the accuracy to reach is that of the resampled plain model. Compute is taken as exact. In a resample in which no
    point reaches the accuracy, the saving would be minus infinity; as the plain models belong to both envelopes, this
    does not occur.

    Args:
        plain_compute: (models,) of the plain models, in any unit.
        plain_right: (models, images), 1 where the answer is right, 0 where not.
        compute: (points,) of the method over all models and keeps.
        right: (points, images), for the same images; the share of seeds that are right for a stochastic method.
        resamples: How many; they come from a fixed seed.
        level: The interval's confidence level.

    Returns:
        For each plain model the saving as a fraction of the plain models' compute, with its interval.

    Raises:
        ValueError: There is no plain model or no image, or the shapes do not fit.

    Source: envelopes as in figure 1 of Marin et al. 2021, "Token Pooling in Vision Transformers"; the interval is
    Efron's 1979, "Bootstrap methods: another look at the jackknife".
    """
    models = np.size(plain_compute)
    costs = np.concatenate([np.ravel(plain_compute), np.ravel(compute)]).astype(float)
    answers = np.concatenate([np.asarray(plain_right, dtype=float), np.asarray(right, dtype=float)])
    if not models or not answers.size or answers.shape != (costs.size, answers.shape[-1]):
        raise ValueError(f"{costs.size} points need as many rows of answers, got {answers.shape}")
    tops = np.concatenate([answers.mean(axis=1)[None], _resampled(answers, resamples)]).round(DECIMALS)
    plain_tops = tops[:, :models]
    savings = []
    for target in plain_tops.T:
        saved = 1 - least_compute(costs, tops, target) / least_compute(costs[:models], plain_tops, target)
        lo, hi = np.quantile(saved[1:], [(1 - level) / 2, (1 + level) / 2])
        savings.append(Interval(float(saved[0]), float(lo), float(hi)))
    return savings


def _resampled(answers: Floats, resamples: int) -> Floats:
    """(resamples, points) accuracies on images drawn with replacement, the same for all points.

    Images with the same answers at all points are interchangeable, so only their numbers are drawn.
    """
    patterns, counts = np.unique(answers, axis=1, return_counts=True)
    images, rng = int(counts.sum()), np.random.default_rng(SEED)
    blocks = [min(BLOCK, resamples - start) for start in range(0, resamples, BLOCK)]
    drawn = [rng.multinomial(images, counts / images, size=block) @ patterns.T / images for block in blocks]
    return np.concatenate(drawn)


def _at(values: Floats, places: NDArray[np.intp]) -> Floats:
    """The value at one place of the last axis each."""
    return np.take_along_axis(values, places[..., None], axis=-1)[..., 0]
