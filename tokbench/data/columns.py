"""Which columns of a table have the images and the labels, and which classes its labels are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokbench.data.errors import DataError
from tokbench.data.labelling import Labelled, Labelling
from tokbench.data.own_classes import classes_from_numbers, classes_from_texts

__all__ = ["EXPECTED", "Columns", "choose_columns", "classes_of_column"]

EXPECTED = (
    "expected 'label', whole numbers or names, and 'image', a struct with 'bytes'; name other columns with "
    "--image-column and --label-column"
)

_IMAGE, _LABEL = "image", "label"


@dataclass(frozen=True)
class Columns:
    """The names of the columns with the images and with the labels."""

    image: str
    label: str


def choose_columns(
    names: Sequence[str], images: Sequence[str], labels: Sequence[str], labelling: Labelling, where: str
) -> Columns:
    """The columns that the user names, else `image` and `label`, else the only ones that can be meant.

    Args:
        names: Of all columns.
        images: The columns that hold images.
        labels: The columns that hold whole numbers.
        labelling: Which ones the user names.
        where: The table's name, for messages.

    Raises:
        DataError: There is no such column, or several may be meant.
    """
    image = _choose(names, images, labelling.image_column, _IMAGE, where)
    return Columns(image, _choose(names, labels, labelling.label_column, _LABEL, where))


def _choose(names: Sequence[str], fitting: Sequence[str], given: str | None, usual: str, where: str) -> str:
    option = f"--{usual}-column"
    if given is not None:
        if given not in names:
            raise DataError(f"{where} has no column '{given}', it has {', '.join(names)}: correct {option}")
        return given
    if usual in names:
        return usual
    if len(fitting) > 1:
        raise DataError(
            f"{where} has several columns that may be the {usual}s ({', '.join(fitting)}): choose one with {option}"
        )
    if not fitting:
        raise DataError(f"{where} has the columns {', '.join(names)}: {EXPECTED}")
    return fitting[0]


def classes_of_column(values: Sequence[Any], class_names: Sequence[str], labelling: Labelling, where: str) -> Labelled:
    """The class of each row.

    Args:
        values: The column of labels: whole numbers or texts.
        class_names: What the table calls the numbers 0, 1, ...; empty where it does not say.
        labelling: What is known of the classes.
        where: The table's name, for messages.

    Raises:
        DataError: A label means no class.
    """
    if any(isinstance(value, str) for value in values):
        return classes_from_texts([value or "" for value in values], labelling, where)
    return classes_from_numbers(values, class_names, labelling, where)
