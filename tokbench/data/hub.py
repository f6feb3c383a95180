"""Data sets of the Hugging Face hub: `hfds/NAME`, with the split after a colon."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa

from tokbench.data.columns import choose_columns, classes_of_column
from tokbench.data.errors import DataError
from tokbench.data.labelling import Labelled, Labelling
from tokbench.data.readers import HubRows

__all__ = ["HUB", "open_hub"]

HUB = "hfds/"
_SPLIT = "validation"


def open_hub(source: str, labelling: Labelling) -> tuple[int, Callable[[Labelling], Labelled], HubRows]:
    """Load a data set's table, without decoding any image.

    Args:
        source: `hfds/NAME` or `hfds/NAME:SPLIT`; without a split the validation split is read.
        labelling: Which split and columns to read.

    Returns:
        How many rows there are, what gives the class of each from what is known of the classes, and their reader.

    Raises:
        DataError: `datasets` is not installed, or the data set cannot be opened.
    """
    name, _, split = source.removeprefix(HUB).partition(":")
    if split and labelling.split not in (None, split):
        raise DataError(f"{source} names another split than --split {labelling.split}: give one of the two")
    if importlib.util.find_spec("datasets") is None:
        raise DataError(f"{source} needs HuggingFace datasets: pip install 'tokbench[hf]'")
    try:
        rows, column, class_names, values = _load(name, split or labelling.split or _SPLIT, source, labelling)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{source} cannot be opened ({reason}): check its name and split (NAME:SPLIT or --split), log in if it is "
            "gated, or download its parquet files and pass their folder"
        ) from error
    return len(values), partial(classes_of_column, values, class_names, where=source), HubRows(rows, column)


def _load(name: str, split: str, source: str, labelling: Labelling) -> tuple[Any, str, list[str], list[Any]]:
    """The rows, the column of their images, the names of the classes, and the label of each row."""
    import datasets

    rows = datasets.load_dataset(name, split=split)
    columns = choose_columns(
        rows.column_names,
        images=[name for name, kind in rows.features.items() if _is_image(kind)],
        labels=[name for name, kind in rows.features.items() if _is_number(kind)],
        labelling=labelling,
        where=source,
    )
    rows = rows.cast_column(columns.image, datasets.Image(decode=False))
    class_names = list(getattr(rows.features[columns.label], "names", None) or [])
    return rows, columns.image, class_names, list(rows[columns.label])


def _is_image(kind: Any) -> bool:
    # not all data sets declare their images, some have the encoded bytes in a plain struct
    return type(kind).__name__ == "Image" or (isinstance(kind, dict) and "bytes" in kind)


def _is_number(kind: Any) -> bool:
    return hasattr(kind, "names") or str(getattr(kind, "dtype", "")).startswith(("int", "uint"))
