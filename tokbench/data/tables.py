"""Parquet files in HuggingFace's layout: which rows they have, and the class of each."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tokbench.data.columns import EXPECTED, Columns, choose_columns, classes_of_column
from tokbench.data.errors import DataError
from tokbench.data.labelling import Labelled, Labelling
from tokbench.data.readers import ParquetRows
from tokbench.data.splits import of_split, one_split

__all__ = ["Tables", "open_tables"]


@dataclass(frozen=True, eq=False)
class Tables:
    """The rows of parquet files, in the order of the files.

    Attributes:
        names: `file.parquet#row` of each.
        classes: Gives the class of each, from what is known of the classes.
        reader: Decodes the image at a position.
    """

    names: tuple[str, ...]
    classes: Callable[[Labelling], Labelled]
    reader: ParquetRows


def open_tables(root: Path, tables: Sequence[str], labelling: Labelling) -> Tables:
    """Read the labels of parquet files.

    Args:
        root: A folder.
        tables: Paths relative to it. Of several splits, the named one is read, else the validation split.
        labelling: Which split and columns to read.

    Raises:
        DataError: They are of several splits, cannot be read, or have other columns or class names than each other.
    """
    chosen = one_split(tables) if labelling.split is None else _of_split(tables, labelling.split, root)
    parts = [_read_labels(root / table, labelling) for table in chosen]
    names = [f"{table}#{row:07d}" for table, part in zip(chosen, parts, strict=True) for row in range(len(part.values))]
    groups = [
        (root / table, number) for table, part in zip(chosen, parts, strict=True) for number in range(len(part.rows))
    ]
    first = parts[0]
    for table, part in zip(chosen, parts, strict=True):
        if (part.columns, part.class_names) != (first.columns, first.class_names):
            raise DataError(f"{table} has other columns or class names than {chosen[0]}: pass files of one data set")
    starts = tuple(accumulate((size for part in parts for size in part.rows), initial=0))[:-1]
    values = [value for part in parts for value in part.values]
    classes = partial(classes_of_column, values, first.class_names or (), where=str(root / chosen[0]))
    return Tables(tuple(names), classes, ParquetRows(tuple(groups), starts, first.columns.image))


@dataclass(frozen=True)
class _Labels:
    """Of one file: its columns, the values of the labels, their names, and the rows of each row group."""

    columns: Columns
    values: list[Any]
    class_names: list[str] | None
    rows: list[int]


def _of_split(tables: Sequence[str], split: str, root: Path) -> list[str]:
    return [tables[place] for place in of_split([table.rpartition(".")[0] for table in tables], split, str(root))]


def _read_labels(file: Path, labelling: Labelling) -> _Labels:
    try:
        with pq.ParquetFile(_existing(file)) as table:
            schema = table.schema_arrow
            columns = _columns(schema, file, labelling)
            values = table.read(columns=[columns.label], use_threads=False)[columns.label].to_pylist()
            rows = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        if sum(rows) != len(values):
            raise ValueError(f"{sum(rows)} rows, {len(values)} labels")
        return _Labels(columns, values, _class_names(schema, columns.label), rows)
    except DataError:
        raise
    except Exception as error:  # a damaged file makes arrow raise almost anything
        reason = str(error) or type(error).__name__
        raise DataError(f"{file} cannot be read as parquet ({reason.splitlines()[0]}): download it again") from error


def _existing(file: Path) -> Path:
    if not file.is_file():  # arrow would wait for ever for a FIFO
        raise ValueError("not a file")
    return file


def _columns(schema: pa.Schema, file: Path, labelling: Labelling) -> Columns:
    """Which columns have the images and the labels."""
    once = [name for name in schema.names if schema.get_field_index(name) >= 0]  # not those that occur twice
    types = {name: schema.field(name).type for name in once}
    columns = choose_columns(
        schema.names,
        images=[name for name in once if _has_bytes(types[name])],
        labels=[name for name in once if pa.types.is_integer(types[name])],
        labelling=labelling,
        where=str(file),
    )
    for name in (columns.image, columns.label):
        if name not in types:
            raise DataError(f"{file} has the columns {', '.join(schema.names)}: {EXPECTED}")
    label = types[columns.label]
    if not _has_bytes(types[columns.image]):
        raise _wrong_type(file, columns.image, types)
    if not (pa.types.is_integer(label) or pa.types.is_string(label) or pa.types.is_large_string(label)):
        raise _wrong_type(file, columns.label, types)
    return columns


def _wrong_type(file: Path, column: str, types: Mapping[str, pa.DataType]) -> DataError:
    article = "an" if column[:1] in "aeiou" else "a"
    return DataError(f"{file} has {article} '{column}' of type {types[column]}: {EXPECTED}")


def _has_bytes(column: pa.DataType) -> bool:
    if not pa.types.is_struct(column) or column.get_field_index("bytes") < 0:
        return False
    content = column.field("bytes").type
    return bool(pa.types.is_binary(content) or pa.types.is_large_binary(content))


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """The class names that HuggingFace writes into the metadata.

    Raises:
        ValueError: The metadata are damaged.
    """
    described: Any = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    for key in ("info", "features", column, "names"):
        if not isinstance(described, dict):
            raise ValueError(f"its metadata have no object with '{key}'")
        described = described.get(key)
        if described is None:
            return None
    if not isinstance(described, list) or not all(isinstance(name, str) for name in described):
        raise ValueError("its class names are not a list of texts")
    return described
