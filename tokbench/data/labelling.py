"""How a user says which class each image belongs to, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["IMAGENET_CLASSES", "Labelled", "Labelling", "few"]

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Labelling:
    """What is known of the classes before the images are looked at.

    Attributes:
        classes: The names of the classes in the order of the model's outputs, as the user gave them; else empty.
        labels: A table with the class of each file; None where folders or the data themselves say it.
        split: The split to read; None where there is one only.
        image_column: The column of a table that has the images; None to find it.
        label_column: The column of a table that has the labels; None to find it.
        outputs: How many outputs the heads of the models have, 0 without a head; empty where no model is known.
        model_names: The names of a model's outputs, in their order; empty where the weights come without names.
    """

    classes: tuple[str, ...] = ()
    labels: Path | None = None
    split: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    outputs: tuple[int, ...] = (IMAGENET_CLASSES,)
    model_names: tuple[str, ...] = ()

    @property
    def imagenet(self) -> bool:
        """Whether labels may be ImageNet-1k's: a head has its 1,000 classes, or no head says how many there are."""
        return IMAGENET_CLASSES in self.outputs or not any(self.outputs)

    def fits(self, count: int) -> bool:
        """Whether so many classes may be all that there are: those of a head, or any number without a head."""
        return count in self.outputs or not any(self.outputs)

    def head_above(self, number: int) -> int | None:
        """The outputs of the first head that has a class of this number; without a head as many as that takes."""
        if not any(self.outputs):
            return number + 1
        return next((count for count in self.outputs if count > number), None)

    @property
    def heads(self) -> str:
        """`the model has 10 outputs`, for messages."""
        counts = [f"{count:,}" for count in dict.fromkeys(self.outputs) if count]
        return f"the model has {counts[0]} outputs" if len(counts) == 1 else f"the models have {' and '.join(counts)}"


@dataclass(frozen=True)
class Labelled:
    """The classes of images.

    Attributes:
        kind: How the images give them: the name of a set that has no other.
        labels: The class index of each image.
        class_names: The names of the classes in the order of their indices; empty for ImageNet-1k's, and where the
            classes have numbers only.
        class_count: How many classes there are.
        notes: What a user should know of how they were found, a line each.
    """

    kind: str
    labels: tuple[int, ...]
    class_names: tuple[str, ...] = ()
    class_count: int = IMAGENET_CLASSES
    notes: tuple[str, ...] = ()

    @property
    def imagenet(self) -> bool:
        """Whether the classes are ImageNet-1k's."""
        return not self.class_names and self.class_count == IMAGENET_CLASSES


def few(names: Iterable[str], count: int = 3) -> str:
    """The first of some names in quotes, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(repr(name) for name in names[:count]) + more
