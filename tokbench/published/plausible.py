"""Plain models that do no better than guessing: their labels, weights or preprocessing are not those of the data."""

from __future__ import annotations

from itertools import islice

from scipy import stats

from tokbench.outcomes import RIGHT, UNREADABLE
from tokbench.results.directory import Results

FEWEST = 30  # images; fewer say nothing
SURE = 0.001  # a guesser gets as many right in more than this fraction of sets: then it may be guessing
EXAMPLES = 3


def at_chance(results: Results) -> list[str]:
    """Warnings about plain models whose answers are no better than guesses.

    Args:
        results: A results directory.

    Returns:
        One line for each model, with three images that it got wrong; none where there are fewer than 30 images.
    """
    info, images = results.plan.images, results.images
    if info is None or images is None:
        return []
    lines = []
    for row in {row.id.model: row for row in results.plan.rows if row.is_plain}.values():
        outcomes = results.outcomes(row) or ""
        seen = len(outcomes) - outcomes.count(UNREADABLE)
        right = outcomes.count(RIGHT)
        if seen < FEWEST or stats.binom.sf(right - 1, seen, 1 / info.classes) <= SURE:
            continue
        wrong = (item for item, mark in zip(images.items(), outcomes, strict=True) if mark not in (RIGHT, UNREADABLE))
        examples = ", ".join(f"{name} as class {label}" for name, label in islice(wrong, EXAMPLES))
        lines.append(
            f"{row.id.model} is right on {right} of {seen} images, no better than guessing among {info.classes} "
            f"classes: the labels and the model's classes probably do not match (labelled: {examples})"
        )
    return lines
