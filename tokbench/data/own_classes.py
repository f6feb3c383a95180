"""The classes of images that need not be ImageNet-1k's: from folders, texts or numbers.

In this order: the names that the user gives; ImageNet-1k's classes, if a model has its 1,000 outputs; the model's own
names; the sorted names of the folders (or of a table's texts), if there are as many as the model has outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from timm.utils.misc import natural_key

from tokbench.data.class_names import ClassIndex
from tokbench.data.errors import DataError, UnlabelledError
from tokbench.data.labelling import Labelled, Labelling, few
from tokbench.data.labels import is_synset, labels_from_names, labels_from_synsets, labels_from_values

__all__ = ["classes_from_folders", "classes_from_numbers", "classes_from_texts"]

_GIVEN, _MODELS = "the classes", "the model's class names"
_FIX = "give the names of the classes in the order of the model's outputs with --classes FILE"
_NUMBER = re.compile(r"[0-9]{1,9}")


def classes_from_folders(names: Sequence[str], solution_folders: Sequence[Path], labelling: Labelling) -> Labelled:
    """The class of each image from the folders in its path.

    Args:
        names: Paths relative to the root, with forward slashes.
        solution_folders: Where to look for Kaggle's list of ImageNet's validation labels.
        labelling: What is known of the classes.

    Raises:
        UnlabelledError: No folder says a class, or it is not clear which classes they are.
        DataError: Some images have a class and others none.
    """
    refusal: DataError | None = None
    given = _in_named_folders(names, labelling.classes, _GIVEN)
    if given is not None:
        return given
    if labelling.imagenet:
        try:
            return _imagenet(names, solution_folders)
        except DataError as error:
            refusal = error
    if labelling.classes:
        numbered = _class_numbers([(_parents(name) or ("",))[-1] for name in names], labelling)
        if numbered is None:
            raise _unlabelled(names, labelling)
        return numbered
    found = _in_named_folders(names, labelling.model_names, _MODELS) or _in_sorted_folders(names, labelling)
    if found is not None:
        return found
    if refusal is None:
        try:
            return _imagenet(names, solution_folders)  # which the model cannot be measured on, and its row says so
        except DataError:
            refusal = _unlabelled(names, labelling)
    raise refusal


def classes_from_texts(texts: Sequence[str], labelling: Labelling, where: str) -> Labelled:
    """The class that each text means: a name, a synset id of ImageNet's, or, if all are, a class number.

    Args:
        texts: One per image.
        labelling: What is known of the classes.
        where: Where they stand, for messages.

    Raises:
        DataError: A text means no class.
    """
    if not all(texts):
        raise DataError(f"{where} has {sum(not text for text in texts):,} images without a label: add their labels")
    given = _named(texts, labelling.classes)
    if given is not None and None not in given:
        return _own("labels", given, labelling.classes)
    if not labelling.classes and not labelling.imagenet:  # names may be numbers in another order
        known = _named(texts, labelling.model_names)
        if known is not None and None not in known:
            return _own("labels", known, labelling.model_names)
    if all(map(_NUMBER.fullmatch, texts)):
        return classes_from_numbers([int(text) for text in texts], (), labelling, where)
    if labelling.classes:
        raise _not_among(_unmatched(texts, labelling.classes), labelling.classes, _GIVEN, where)
    if labelling.imagenet and all(map(is_synset, texts)):
        return Labelled("labels", labels_from_synsets(texts))
    known = _named(texts, labelling.model_names)
    if known is not None:
        if None in known:
            raise _not_among(_unmatched(texts, labelling.model_names), labelling.model_names, _MODELS, where)
        return _own("labels", known, labelling.model_names)
    order = sorted(set(texts))
    if labelling.fits(len(order)):
        return _own("labels", [order.index(text) for text in texts], order, _about_order(order, labelling))
    raise DataError(f"{where} has {len(order):,} classes ({few(order)}), and {labelling.heads}: {_FIX}")


def classes_from_numbers(
    numbers: Sequence[Any], table_names: Sequence[str], labelling: Labelling, where: str
) -> Labelled:
    """The class of each image from a column of whole numbers.

    Args:
        numbers: One per image.
        table_names: The names that the table gives to the numbers 0, 1, ...; empty where it gives none.
        labelling: What is known of the classes.
        where: The table's name, for messages.

    Raises:
        DataError: A number means no class.
    """
    refusal: DataError | None = None
    if labelling.imagenet and not labelling.classes:
        try:
            return Labelled("labels", labels_from_values(numbers, table_names or None, where))
        except DataError as error:
            refusal = error
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise refusal or DataError(
            f"{where} has rows without a label (a test split has none): use the validation split"
        )
    highest = max(numbers, default=0)
    if table_names:
        if highest >= len(table_names):
            raise DataError(f"{where} has the label {highest}, and names {len(table_names)} classes: write it anew")
        found = _from_table_names(numbers, table_names, labelling, where)
        if found is not None:
            return found
        raise refusal or DataError(
            f"{where} has {len(table_names):,} classes ({few(table_names)}), and {labelling.heads}: {_FIX}"
        )
    count = len(labelling.classes) or labelling.head_above(highest)
    if count is None or highest >= count:
        many = f"{_GIVEN} are {count}" if labelling.classes else labelling.heads
        raise refusal or DataError(f"{where} has the label {highest}, and {many}: number the classes from 0")
    names = labelling.classes or (labelling.model_names if len(labelling.model_names) == count else ())
    return Labelled("labels", tuple(numbers), tuple(names), count)


def _from_table_names(
    numbers: Sequence[int], table_names: Sequence[str], labelling: Labelling, where: str
) -> Labelled | None:
    """Numbers whose names the table gives, as the user's, the model's or the table's own classes."""
    for names, whose in ((labelling.classes, _GIVEN), (labelling.model_names, _MODELS)):
        if tuple(names) == tuple(table_names):  # among which may be the same name twice
            return _own("labels", numbers, names)
        index = _named(table_names, names)
        if index is not None and None not in index:
            return _own("labels", [index[number] for number in numbers], names)
        if names and (index is not None or whose is _GIVEN):
            raise _not_among(_unmatched(table_names, names), names, whose, where)
    return _own("labels", numbers, table_names) if labelling.fits(len(table_names)) else None


def _imagenet(names: Sequence[str], solution_folders: Iterable[Path]) -> Labelled:
    kind, labels = labels_from_names(names, solution_folders)
    return Labelled(str(kind), labels)


def _own(kind: str, labels: Sequence[int | None], names: Sequence[str], notes: tuple[str, ...] = ()) -> Labelled:
    known = tuple(label for label in labels if label is not None)
    return Labelled(kind, known, tuple(names), len(names), notes)


def _named(texts: Sequence[str], names: Sequence[str]) -> list[int | None] | None:
    """The class of each text, None for those that name none; None altogether where none of them does."""
    index = ClassIndex(names)
    found = [index.find(text) for text in texts]
    return found if any(label is not None for label in found) else None


def _in_named_folders(names: Sequence[str], classes: Sequence[str], whose: str) -> Labelled | None:
    """The images whose nearest folder with the name of a class says their class; None where no folder has one.

    Raises:
        DataError: Some images are in such a folder and others are not.
    """
    index = ClassIndex(classes)
    found = [
        next((label for folder in reversed(_parents(name)) if (label := index.find(folder)) is not None), None)
        for name in names
    ]
    if all(label is None for label in found):
        return None
    missing = [name for name, label in zip(names, found, strict=True) if label is None]
    if missing:
        raise _not_among(_folders(missing), classes, whose)
    return _own("folders", found, classes)


def _in_sorted_folders(names: Sequence[str], labelling: Labelling) -> Labelled | None:
    """The images whose folders are as many as the model has outputs, or have numbers of its outputs.

    The folders are those below the one that has all images, as torchvision takes them, else the innermost, as timm
    does.
    """
    parents = [_parents(name) for name in names]
    if not all(parents):
        return None
    common = 0
    while common < min(map(len, parents)) - 1 and len({folders[common] for folders in parents}) == 1:
        common += 1
    for place in (common, -1):
        folders = [several[place] for several in parents]
        numbers = _class_numbers(folders, labelling)
        if numbers is not None:
            return numbers
        order = sorted(set(folders))
        if labelling.fits(len(order)):
            index = {name: label for label, name in enumerate(order)}
            return _own("folders", [index[name] for name in folders], order, _about_order(order, labelling))
    return None


def _class_numbers(folders: Sequence[str], labelling: Labelling) -> Labelled | None:
    """Folders with the numbers of classes from 0; all of a head's classes or some of them."""
    known = set(folders)
    if not all(map(_NUMBER.fullmatch, known)) or len(set(map(int, known))) < len(known):
        return None
    highest = max(map(int, known))
    count = len(labelling.classes) or labelling.head_above(highest)
    if count is None or highest >= count or (not any((*labelling.outputs, *labelling.classes)) and len(known) < count):
        return None
    names = labelling.classes or tuple(map(str, range(count)))
    notes: tuple[str, ...] = ()
    if not labelling.classes and min(map(int, known)) > 0:
        notes = (
            f"the folders {few(sorted(known, key=int))} are taken as class numbers from 0, though there is no 0: if "
            "they are numbered from 1, give their names in the order of the model's outputs with --classes FILE",
        )
    if not labelling.classes and sorted(known) != sorted(known, key=int):
        notes = (
            *notes,
            f"the folders 0..{highest} are taken as class numbers, as timm does; torchvision's ImageFolder sorts "
            "numbers as texts (0, 1, 10, 11, ...): for a model trained with it give this order with --classes FILE",
        )
    return Labelled("folders", tuple(map(int, folders)), names, count, notes)


def _about_order(order: Sequence[str], labelling: Labelling) -> tuple[str, ...]:
    """What to say of classes in sorted order, if it is not the only one that training programs use."""
    notes = []
    if labelling.model_names:
        notes.append(
            f"the classes {few(order)} are in sorted order, since none of them is among {_MODELS} "
            f"({few(labelling.model_names)})"
        )
    if list(order) != sorted(order, key=natural_key):
        notes.append(
            f"the classes are sorted as torchvision's ImageFolder sorts them ({few(order)}); timm's order is another "
            f"({few(sorted(order, key=natural_key))}): for a model trained with it give this order with --classes FILE"
        )
    return tuple(notes)


def _unlabelled(names: Sequence[str], labelling: Labelling) -> DataError:
    folders = _folders(names)
    if not any(_parents(name) for name in names):
        return UnlabelledError(
            f"cannot read a class from {few(folders)}: sort the images into one folder per class, or give a table of "
            "their classes with --labels FILE"
        )
    loose = [name for name in names if not _parents(name)]
    if loose:
        return DataError(
            f"cannot read a class from {few(loose)}, which are in no folder: move them into a class's folder or away"
        )
    if labelling.classes:
        return UnlabelledError(str(_not_among(folders, labelling.classes, _GIVEN)))
    return UnlabelledError(
        f"cannot read a class from {few(folders)}: there are {len(folders):,} folders, and {labelling.heads}: {_FIX}"
    )


def _not_among(unknown: Iterable[str], classes: Sequence[str], whose: str, where: str = "") -> DataError:
    fix = "rename them, or correct --classes FILE" if whose is _GIVEN else _FIX
    place = f" of {where}" if where else ""
    return DataError(f"{few(unknown)}{place} not among {whose} ({few(classes)}): {fix}")


def _unmatched(texts: Iterable[str], names: Sequence[str]) -> list[str]:
    index = ClassIndex(names)
    return [text for text in dict.fromkeys(texts) if index.find(text) is None]


def _parents(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parent.parts


def _folders(names: Sequence[str]) -> list[str]:
    """The innermost folder of each image, or the image's name where it has none, each once."""
    return list(dict.fromkeys(PurePosixPath(name).parent.name or name for name in names))
