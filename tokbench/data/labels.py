"""Which of the 1,000 ImageNet-1k classes an image belongs to, and which known image set a list of labels matches.

ImageNet is distributed in several layouts, which give the class in different ways: folders named by WordNet synset id,
the id in the file name, folders named by class number, or a separate list (the official validation archive).
Class indices are positions in timm's sorted list of synsets, the order of its models' outputs.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from tokbench.data.errors import DataError, UnlabelledError
from tokbench.data.labelling import IMAGENET_CLASSES, few

SOLUTION = "LOC_val_solution.csv"
"""Kaggle's list of the validation labels, with the columns `ImageId,PredictionString`."""

_SYNSET = re.compile(r"n\d{8}")
_SYNSET_IN_FILE = re.compile(r"(?:^|_)(n\d{8})(?=[_.])")
_NUMBER = re.compile(r"0*([0-9]{1,3}|1000)")
_OFFICIAL = re.compile(r"ILSVRC2012_val_\d{8}")
_MAX_SOLUTION = 64 * 2**20  # bytes; Kaggle's list has 4 MB


class Kind(StrEnum):
    """How a list of images gives its labels."""

    SYNSETS = "synsets"
    NUMBERS = "numbers"
    OFFICIAL = "official"


def synset_index() -> dict[str, int]:
    """Map each of the 1,000 synset ids to its class index."""
    return {synset: index for index, synset in enumerate(_synsets("imagenet_synsets.txt"))}


def is_synset(text: str) -> bool:
    """Whether a text is a WordNet synset id, `n01440764`."""
    return _SYNSET.fullmatch(text) is not None


def labels_from_synsets(synsets: Sequence[str]) -> tuple[int, ...]:
    """The class index of each synset id.

    Raises:
        DataError: An id is not one of the 1,000.
    """
    index = synset_index()
    unknown = dict.fromkeys(synset for synset in synsets if synset not in index)
    if unknown:
        raise DataError(
            f"not among the 1,000 classes of ImageNet-1k: {few(unknown)}; remove these images or correct the id"
        )
    return tuple(index[synset] for synset in synsets)


def labels_from_names(names: Sequence[str], solution_folders: Iterable[Path]) -> tuple[Kind, tuple[int, ...]]:
    """Read each image's class from its path.

    In order of priority: a synset id in the nearest folder that has one; a synset id in the file name; the number of
    the file's own folder (see `_from_numbers`); the official validation name, whose class is listed in
    `LOC_val_solution.csv`. Official names in numbered folders are looked up there too, if the list is at hand.

    Args:
        names: Paths relative to the root, with forward slashes.
        solution_folders: Folders in which to look for `LOC_val_solution.csv`; the first one found is used.

    Returns:
        How the names give their class, and the class indices in the order of `names`.

    Raises:
        UnlabelledError: No name has a class, or the official names need the solution and it is missing.
        DataError: A name has no class or one that is not among the 1,000, or the names give their class in different
            ways.
    """
    clues = [_clue(name) for name in names]
    unlabelled = dict.fromkeys(
        _folder_or_name(name) for name, clue in zip(names, clues, strict=True) if clue is None
    )  # a dict keeps the order and removes duplicates
    if unlabelled:
        error = DataError if any(clues) else UnlabelledError
        raise error(
            f"cannot read a class from {few(unlabelled)}: name each folder by its synset id (n01440764) or its "
            "class number (0..999 or 1..1000), start the file names with the synset id, or give the names of your own "
            "classes with --classes FILE, or the labels with --labels FILE"
        )
    known = [clue for clue in clues if clue is not None]
    examples = {kind: name for name, (kind, _) in zip(names, known, strict=True)}
    if len(examples) > 1:
        raise DataError(
            f"the images are labelled in different ways ({few(examples.values())}): pass only one of these folders"
        )
    (kind,) = examples
    texts = [text for _, text in known]
    if kind is Kind.SYNSETS:
        return kind, labels_from_synsets(texts)
    stems = [PurePosixPath(name).stem for name in names]
    solution = _find_solution(solution_folders) if all(map(_OFFICIAL.fullmatch, stems)) else None
    if kind is Kind.NUMBERS and solution is None:
        return kind, _from_numbers([int(text) for text in texts])
    return Kind.OFFICIAL, labels_from_synsets(_look_up_solution(stems, solution))


def _from_numbers(numbers: Sequence[int]) -> tuple[int, ...]:
    """The classes that folders' numbers mean: 0..999 as in ImageNet-V2, unless there is a 1000 and no 0.

    Raises:
        DataError: There are both.
    """
    if {0, IMAGENET_CLASSES} <= set(numbers):
        raise DataError("the folders are numbered both '0' and '1000': number the classes 0..999 or 1..1000")
    first = 1 if IMAGENET_CLASSES in numbers else 0
    return tuple(number - first for number in numbers)


def labels_from_values(values: Sequence[Any], class_names: Sequence[str] | None, where: str) -> tuple[int, ...]:
    """Convert the label column of a table to class indices.

    Args:
        values: The column, one number per row.
        class_names: The table's class names, if it has any. Synset ids are looked up; other names must be 1,000, in
            ImageNet-1k's order.
        where: The name of the table, for messages.

    Raises:
        DataError: The numbers are not classes of ImageNet-1k.
    """
    if class_names and all(_SYNSET.fullmatch(name) for name in class_names):
        index = dict(enumerate(labels_from_synsets(class_names)))
        values = [index.get(value) for value in values]
    elif class_names and len(class_names) != IMAGENET_CLASSES:
        raise DataError(
            f"{where} has {len(class_names)} classes ({few(class_names)}): use a set with ImageNet-1k's 1,000 "
            "classes, or one whose classes are named by synset id"
        )
    labels = tuple(value for value in values if type(value) is int and 0 <= value < IMAGENET_CLASSES)
    if len(labels) < len(values):
        raise DataError(
            f"{where} has rows whose label is not in 0..999 (a test split has no labels): use the validation split"
        )
    return labels


def recognise(kind: str, labels: Sequence[int]) -> tuple[str, tuple[int, ...] | None]:
    """The name of the image set with these labels, and the classes over which its accuracy is defined.

    ImageNet-A and -R are recognised by their 200 classes, exactly these: a few of their folders are not the set, and do
    not restrict the logits. ImageNet's validation set and ImageNet-V2 are recognised only when complete (50 and 10
    images in each of the 1,000 classes), because the accuracy on a part is not the accuracy on the set.

    Returns:
        The name ('imagenet', 'imagenet-v2', 'imagenet-a', 'imagenet-r', else `kind`), and the sorted class indices
        that logits are restricted to (None for all).
    """
    counts = Counter(labels)
    if kind == Kind.NUMBERS:
        return ("imagenet-v2" if _is_complete(counts, 10) else str(kind)), None
    index = synset_index()
    for name in ("imagenet-a", "imagenet-r"):
        classes = {index[synset] for synset in _synsets(f"{name.replace('-', '_')}_synsets.txt")}
        if counts.keys() == classes:
            return name, tuple(sorted(classes))
    return ("imagenet" if _is_complete(counts, 50) else str(kind)), None


def _is_complete(counts: Counter[int], images_per_class: int) -> bool:
    return len(counts) == IMAGENET_CLASSES and set(counts.values()) == {images_per_class}


def _synsets(file: str) -> list[str]:
    return resources.files("timm.data").joinpath("_info", file).read_text(encoding="utf-8").split()


def _clue(name: str) -> tuple[Kind, str] | None:
    path = PurePosixPath(name)
    for folder in reversed(path.parent.parts):
        if _SYNSET.fullmatch(folder):
            return Kind.SYNSETS, folder
    if found := _SYNSET_IN_FILE.search(path.name):
        return Kind.SYNSETS, found[1]
    if number := _NUMBER.fullmatch(path.parent.name):
        return Kind.NUMBERS, number[1]
    if _OFFICIAL.fullmatch(path.stem):
        return Kind.OFFICIAL, path.stem
    return None


def _find_solution(folders: Iterable[Path]) -> Path | None:
    return next((file for folder in folders if (file := folder / SOLUTION).is_file()), None)


def _look_up_solution(image_ids: Sequence[str], solution: Path | None) -> list[str]:
    if solution is None:
        raise UnlabelledError(
            f"the names of the official validation images do not contain the class: put Kaggle's {SOLUTION} next to "
            "them, or sort them into folders by synset id"
        )
    answers = _read_solution(solution)
    missing = [image_id for image_id in image_ids if not answers.get(image_id)]
    if missing:
        raise DataError(f"{solution} has no line for {few(missing)}: download the complete list from Kaggle")
    return [answers[image_id][0] for image_id in image_ids]


def _read_solution(solution: Path) -> dict[str | None, list[str]]:
    """Each image's class, followed by its bounding boxes."""
    try:
        if solution.stat().st_size > _MAX_SOLUTION:
            raise ValueError(f"more than {_MAX_SOLUTION >> 20} MiB")
        with solution.open(newline="", encoding="utf-8-sig") as lines:
            # PredictionString is "n01751748 111 109 330 334 ..."
            return {row.get("ImageId"): (row.get("PredictionString") or "").split() for row in csv.DictReader(lines)}
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{solution} cannot be read ({error}): download the list from Kaggle again") from error


def _folder_or_name(name: str) -> str:
    return PurePosixPath(name).parent.name or name
