"""A table that says the class of each image file: `--labels FILE`."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tokbench.data.errors import DataError
from tokbench.data.labelling import few

__all__ = ["read_label_file"]

_FILE_COLUMNS = "filename file file_name image image_id path name id".split()
_LABEL_COLUMNS = "label class target category".split()
_SEPARATORS = ",;\t"
_MAX_BYTES = 2**30
_FIX = "give a column named filename, image, path or id, and one named label, class, target or category"


def read_label_file(file: Path, names: Sequence[str], label_column: str | None = None) -> list[str]:
    """The label of each image as the table has it: a class's name or number.

    A line names its image by the path below the root, by the file name, or by the file name without its suffix.

    Args:
        file: Text in columns, separated by commas, semicolons or tabs. The first line names the columns, or there are
            two: file and label.
        names: The paths of all images relative to the root, with forward slashes.
        label_column: The name of the column with the labels; None to find it.

    Raises:
        DataError: The table cannot be read, does not say which columns they are, leaves out images, names files that
            there are not, or gives one image two labels.
    """
    labels = _read(file, label_column)
    places = _places(names)
    found: dict[str, str] = {}
    unknown = []
    for written, label in labels:
        name = places.get(str(PurePosixPath(written)))
        if name is None:
            unknown.append(written)
        elif found.setdefault(name, label) != label:
            raise DataError(f"--labels: {file} has two labels for {name!r} ({found[name]!r}, {label!r}): keep one")
    if unknown:
        raise DataError(
            f"--labels: {file} names {len(unknown):,} files that are not among the images, such as {unknown[0]!r} (an "
            f"image is {names[0]!r}): remove these lines, or correct the names"
        )
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"--labels: {file} has no line for {len(missing):,} of {len(names):,} images, such as {missing[0]!r}: add "
            "their lines, or move these images away"
        )
    return [found[name] for name in names]


def _places(names: Sequence[str]) -> Mapping[str, str]:
    """Each image by its path, and by its file name with and without suffix where only one image has it."""
    paths = {name: name for name in names}
    for shortened in ([PurePosixPath(name).name for name in names], [PurePosixPath(name).stem for name in names]):
        counts = Counter(shortened)
        paths = {text: name for text, name in zip(shortened, names, strict=True) if counts[text] == 1} | paths
    return paths


def _read(file: Path, label_column: str | None) -> list[tuple[str, str]]:
    """The file and label of each line."""
    try:
        if not file.is_file():
            raise ValueError("there is no such file")
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES >> 30} GiB")
        with file.open(newline="", encoding="utf-8-sig") as text:
            first = text.readline()
            text.seek(0)
            separator = max(_SEPARATORS, key=first.count)
            lines = [[cell.strip() for cell in line] for line in csv.reader(text, delimiter=separator) if any(line)]
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"--labels: {file} cannot be read ({reason}): give a table of files and labels") from error
    if not lines:
        raise DataError(f"--labels: {file} is empty: {_FIX}")
    columns = _columns(lines[0], label_column)
    if columns is None and (len(lines[0]) != 2 or label_column):
        raise DataError(f"--labels: {file} has the columns {few(lines[0], 8)}: {_FIX}")
    place, label = columns or (0, 1)
    rows = lines if columns is None else lines[1:]
    short = next((line for line in rows if len(line) <= max(place, label)), None)
    if short is not None:
        raise DataError(f"--labels: {file} has too few columns in the line {separator.join(short)!r}: correct it")
    return [(line[place], line[label]) for line in rows]


def _columns(header: Sequence[str], label_column: str | None) -> tuple[int, int] | None:
    """Where the file and the label stand; None where the line does not name both."""
    known = [name.casefold() for name in header]
    places = [known.index(name) for name in _FILE_COLUMNS if name in known]
    wanted = _LABEL_COLUMNS if label_column is None else [label_column.casefold()]
    labels = [known.index(name) for name in wanted if name in known]
    return (places[0], labels[0]) if places and labels else None
