"""Plain models that do no better than guessing: their labels, weights or preprocessing are not those of the data."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from scipy import stats

from tokbench.outcomes import RIGHT, UNREADABLE
from tokbench.results.directory import Results

FEWEST = 20  # images; fewer say nothing
SURE = 0.01  # a guesser gets as many right in more than this fraction of sets: then it may be guessing
POOR = 0.001  # a fair model gets as few right in less than this fraction of sets: then it is not one
EXAMPLES = 3


@dataclass(frozen=True)
class Guessing:
    """A plain model whose answers are no better than guesses.

    Attributes:
        model: Its name.
        right: How many of its answers are right.
        seen: How many images could be read.
        classes: How many classes an image may belong to.
        wrong: The position in the set, the name and the label of some images that it got wrong.
    """

    model: str
    right: int
    seen: int
    classes: int
    wrong: tuple[tuple[int, str, int], ...]

    def __str__(self) -> str:
        return (
            f"{self.model} is right on {self.right} of {self.seen} images, no better than guessing among "
            f"{self.classes} classes: the labels and the model's classes probably do not match; check the order of "
            "the classes (--classes FILE), the labels and the weights"
        )


def at_chance(results: Results) -> list[Guessing]:
    """The plain models whose answers are no better than guesses.

    A model counts as guessing where one that draws classes by chance gets as many right in more than 1 % of sets
    (binomial), and one whose accuracy is halfway between chance and 100 % gets as few right in less than 0.1 %. The
    second condition spares weak models on few images of few classes.

    Args:
        results: A results directory.

    Returns:
        Each of them with three images that it got wrong; none where there are fewer than 20 images.
    """
    info, images = results.plan.images, results.images
    if info is None or images is None:
        return []
    found = []
    for row in {row.id.model: row for row in results.plan.rows if row.is_plain}.values():
        outcomes = results.outcomes(row) or ""
        seen = len(outcomes) - outcomes.count(UNREADABLE)
        right = outcomes.count(RIGHT)
        if seen < FEWEST or not _guesses(right, seen, 1 / info.classes):
            continue
        wrong = (
            (place, name, label)
            for place, ((name, label), mark) in enumerate(zip(images.items(), outcomes, strict=True))
            if mark not in (RIGHT, UNREADABLE)
        )
        found.append(Guessing(row.id.model, right, seen, info.classes, tuple(islice(wrong, EXAMPLES))))
    return found


def _guesses(right: int, seen: int, chance: float) -> bool:
    by_chance = stats.binom.sf(right - 1, seen, chance)
    by_a_fair_model = stats.binom.cdf(right, seen, (1 + chance) / 2)
    return bool(by_chance > SURE and by_a_fair_model < POOR)
