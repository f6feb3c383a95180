"""Parquet files in HuggingFace's layout: which rows they have, and the class of each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tokbench.data.errors import DataError
from tokbench.data.labels import labels_from_values
from tokbench.data.readers import ParquetRows
from tokbench.data.splits import one_split

__all__ = ["Tables", "open_tables"]


@dataclass(frozen=True, eq=False)
class Tables:
    """The rows of parquet files, in the order of the files.

    Attributes:
        names: `file.parquet#row` of each.
        labels: The class of each.
        reader: Decodes the image at a position.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    reader: ParquetRows


def open_tables(root: Path, tables: Sequence[str]) -> Tables:
    """Read the labels of parquet files.

    Args:
        root: A folder.
        tables: Paths relative to it. Of several splits, only the validation split is read.

    Raises:
        DataError: They are of several splits, cannot be read, or have rows without a known class.
    """
    names: list[str] = []
    labels: list[int] = []
    groups: list[tuple[Path, int]] = []
    sizes: list[int] = []
    for table in one_split(tables):
        column, class_names, rows = _read_labels(root / table)
        labels += labels_from_values(column, class_names, table)
        names += [f"{table}#{row:07d}" for row in range(len(column))]
        groups += [(root / table, number) for number in range(len(rows))]
        sizes += rows
    starts = tuple(accumulate(sizes, initial=0))[:-1]
    return Tables(tuple(names), tuple(labels), ParquetRows(tuple(groups), starts))


def _read_labels(file: Path) -> tuple[list[Any], list[str] | None, list[int]]:
    """Return the label column, its class names if there are any, and the number of rows of each row group."""
    try:
        with pq.ParquetFile(_existing(file)) as table:
            schema = table.schema_arrow
            _check_columns(schema, file)
            column = table.read(columns=["label"], use_threads=False)["label"].to_pylist()
            rows = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        if sum(rows) != len(column):
            raise ValueError(f"{sum(rows)} rows, {len(column)} labels")
        return column, _class_names(schema), rows
    except DataError:
        raise
    except Exception as error:  # a damaged file makes arrow raise almost anything
        reason = str(error) or type(error).__name__
        raise DataError(f"{file} cannot be read as parquet ({reason.splitlines()[0]}): download it again") from error


def _existing(file: Path) -> Path:
    if not file.is_file():  # arrow would wait for ever for a FIFO
        raise ValueError("not a file")
    return file


def _check_columns(schema: pa.Schema, file: Path) -> None:
    expected = "expected 'label', whole numbers, and 'image', a struct with 'bytes'"
    if any(schema.get_field_index(name) < 0 for name in ("image", "label")):  # also where a name occurs twice
        raise DataError(f"{file} has the columns {', '.join(schema.names)}: {expected}")
    image, label = schema.field("image").type, schema.field("label").type
    binary = (pa.types.is_binary, pa.types.is_large_binary)
    content = image.field("bytes").type if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0 else None
    if content is None or not any(check(content) for check in binary):
        raise DataError(f"{file} has an 'image' of type {image}: {expected}")
    if not pa.types.is_integer(label):
        raise DataError(f"{file} has a 'label' of type {label}: {expected}")


def _class_names(schema: pa.Schema) -> list[str] | None:
    """The class names that HuggingFace writes into the metadata.

    Raises:
        ValueError: The metadata are damaged.
    """
    described: Any = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    for key in ("info", "features", "label", "names"):
        if not isinstance(described, dict):
            raise ValueError(f"its metadata have no object with '{key}'")
        described = described.get(key)
        if described is None:
            return None
    if not isinstance(described, list) or not all(isinstance(name, str) for name in described):
        raise ValueError("its class names are not a list of texts")
    return described
