"""Which split of a set a folder or file belongs to, by the words of its name. Splits are never pooled."""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from posixpath import dirname

from tokbench.data.errors import DataError

__all__ = ["one_split", "refuse_several_splits"]

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
    folders = sorted({dirname(name) for name in names})
    splits = dict(found for folder in folders if (found := _split(folder.split("/"))))
    if len(splits) > 1:
        raise DataError(f"the images are from both {_some(splits.values())}: pass the folder of one split")


def one_split(tables: Sequence[str]) -> list[str]:
    """The tables to read, where a folder may have those of several splits, as HuggingFace's do.

    Args:
        tables: Paths relative to the root, with forward slashes. The file name tells the split, else its folders.

    Returns:
        All of them if they are of one split, else those of the validation split.

    Raises:
        DataError: There are several splits, and not exactly one of them is a validation split.
    """
    paths = [PurePosixPath(table) for table in tables]
    found = [_split((*path.parent.parts, path.stem)) for path in paths]
    words = {
        split[0] if split else "": split[1] if split else path.name for split, path in zip(found, paths, strict=True)
    }
    wanted = list(words) if len(words) == 1 else sorted(words.keys() & _VALIDATION)
    if len(wanted) > 1:
        wanted = []
    if tables and not wanted:
        raise DataError(
            f"the parquet files are of several splits ({_some(words.values())}): pass the file of one split, or a "
            "folder with only its files"
        )
    return [table for table, split in zip(tables, found, strict=True) if (split[0] if split else "") in wanted]


def _split(parts: Sequence[str]) -> tuple[str, str] | None:
    """The split that the last of these parts tells which tells one, and that part."""
    for part in reversed(parts):
        words = {word.lower() for word in _WORD.findall(part)}
        splits = {_SPLITS[word] for word in words if word in _SPLITS}
        if len(splits) == 1:  # `train_val` tells nothing
            return splits.pop(), part
    return None


def _some(words: Iterable[str]) -> str:
    return " and ".join(repr(word) for word in list(words)[:3])
