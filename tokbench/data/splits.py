"""Which split of a set a folder or file belongs to, by the words of its name. Splits are never pooled."""

import re
from collections.abc import Iterable, Sequence
from posixpath import dirname

from tokbench.data.errors import DataError

__all__ = ["of_split", "one_split", "refuse_several_splits"]

_WORDS = {
    "train": "train training trained trainset trn",
    "validation": "val valid validation validate valset validset",
    "dev": "dev devel devset",
    "eval": "eval evaluation evalset",
    "test": "test testing testset tst",
}
_SPLITS = {word: split for split, words in _WORDS.items() for word in words.split()}
_VALIDATION = {"validation", "dev", "eval"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")  # `ValImages`, `val_images` and `VAL.X1` have the word `val`


def refuse_several_splits(names: Iterable[str]) -> None:
    """Check that images are of one split.

    Args:
        names: Paths relative to the root, with forward slashes; their folders count.

    Raises:
        DataError: The folders are of several splits.
    """
    splits = dict(_split(folder.split("/")) for folder in sorted({dirname(name) for name in names}))
    splits.pop("", None)
    if len(splits) > 1:
        one, other, *_ = splits.values()
        raise DataError(
            f"the images are from both {one!r} and {other!r}: pass the folder of one split, or name it with --split"
        )


def of_split(paths: Sequence[str], split: str, where: str) -> list[int]:
    """The positions of the images or tables of one split.

    Args:
        paths: Relative to the root, with forward slashes: the folder of each image, or each table without its suffix.
        split: The name of a folder or table; else a word for the same split: `val` also means the folder `validation`.
        where: The root, for the message.

    Raises:
        DataError: There is no such split.
    """
    parts = [path.split("/") for path in paths]
    splits = [_split(own) for own in parts]
    meant = _split([split])[0]
    same = {word for word, one in _SPLITS.items() if one == meant}
    # whole names before words: `val/test_tube` is of the validation split
    found = (
        _named(parts, {split.casefold()})
        or _named(parts, same)
        or [place for place, (own, _) in enumerate(splits) if own and own == meant]
    )
    if not found:
        known = sorted({part for _, part in splits if part})
        there = f"there are {', '.join(map(repr, known))}" if known else "no folder or file has the name of a split"
        raise DataError(f"{where} has no split {split!r}: {there}")
    return found


def _named(parts: Sequence[Sequence[str]], names: set[str]) -> list[int]:
    return [place for place, own in enumerate(parts) if not names.isdisjoint(map(str.casefold, own))]


def one_split(tables: Sequence[str]) -> list[str]:
    """The tables to read, where a folder may have those of several splits, as HuggingFace's do.

    Args:
        tables: Paths relative to the root, with forward slashes. The file name tells the split, else its folders.

    Returns:
        All of them if they are of one split, else those of the validation split.

    Raises:
        DataError: There are several splits, and not exactly one of them is a validation split.
    """
    found = [_split(table.rpartition(".")[0].split("/")) for table in tables]
    splits = dict(found)
    if len(splits) < 2:
        return list(tables)
    wanted = splits.keys() & _VALIDATION
    if len(wanted) != 1:
        words = ", ".join(repr(word) if word else "others" for word in splits.values())
        raise DataError(
            f"the parquet files are of several splits ({words}): pass the file of one split, a folder with only "
            "its files, or name the split with --split"
        )
    return [table for table, (split, _) in zip(tables, found, strict=True) if split in wanted]


def _split(parts: Sequence[str]) -> tuple[str, str]:
    """The split that the last of these parts tells which tells one, and that part; empty if none does."""
    for part in reversed(parts):
        words = {word.lower() for word in _WORD.findall(part)}
        splits = {_SPLITS[word] for word in words if word in _SPLITS}
        if len(splits) == 1:  # `train_val` tells nothing
            return splits.pop(), part
    return "", ""
