"""The tables and the list of images: what the plan and the records give, rebuilt and compared cell by cell."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from tokbench.contribute.planned import described
from tokbench.contribute.problem import Name, Problem
from tokbench.embedded.images import image_set
from tokbench.kinds import KINDS
from tokbench.names import EMBEDDED
from tokbench.results import Results
from tokbench.results.directory import IMAGES, TABLES, without_formulas

ROUNDING = 1e-9  # that another processor or library may change in a computed statistic, relative


def check_tables(results: Results) -> Iterator[Problem]:
    """Compare each table with what follows from the records.

    Columns may be missing, as in a table of an older version.

    Args:
        results: The contributed results, with records that can be read.
    """
    names = [described(row) for row in results.plan.rows]
    for name in TABLES:
        stored = _read(results.directory / name)
        problem = "it cannot be read" if stored is None else _difference(stored, results.table, names)
        if problem:
            yield Problem(Name.CHANGED_TABLE, f"{name}: {problem}")
    for kind in KINDS.values():
        for name, rebuilt in kind.tables(results).items():
            stored = _read(results.directory / name)
            problem = "it cannot be read" if stored is None else _difference(stored, rebuilt, ())
            if problem:
                yield Problem(Name.CHANGED_TABLE, f"{name}: {problem}")


def check_images(results: Results, references: Sequence[Results]) -> Iterator[Problem]:
    """Compare the list of images with the plan, with tokbench's own images, and with results on the same images.

    Args:
        results: The contributed results.
        references: Other results.
    """
    info, images = results.plan.images, results.images
    if info is None or images is None:
        return
    if len(images) != info.count:
        yield Problem(Name.CHANGED_IMAGES, f"{IMAGES} has {len(images)} images, the plan {info.count}")
    if any(not 0 <= label < info.classes for label in images.values()):
        yield Problem(Name.CHANGED_IMAGES, f"{IMAGES} has labels beyond the {info.classes} classes of the plan")
    if results.plan.suite.data == EMBEDDED:
        own = image_set()
        own = own.head(results.plan.suite.limit) if results.plan.suite.limit else own
        if own.identity != info.identity or list(images.items()) != list(zip(own.names, own.labels, strict=True)):
            yield Problem(Name.CHANGED_IMAGES, f"{IMAGES} or the plan is not of the images that come with tokbench")
    for other in references:
        if other.plan.images is not None and other.plan.images.identity == info.identity and other.images != images:
            yield Problem(Name.CHANGED_IMAGES, f"{IMAGES} has other images or labels than {other.directory}")


def _read(file: Path) -> pd.DataFrame | None:
    """A table with all values as text; None where it cannot be read."""
    try:
        if file.suffix == ".csv":
            return _as_text(file.read_text(encoding="utf-8"))
        with file.open("rb") as content:
            return _texts(pd.read_parquet(content))
    except (OSError, ValueError):
        return None


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    """A table as it is written to a csv file, with all values as text."""
    return _as_text(without_formulas(table).to_csv(index=False))


def _as_text(csv: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(csv), dtype=str, keep_default_na=False)


def _difference(stored: pd.DataFrame, rebuilt: pd.DataFrame, rows: Sequence[str]) -> str:
    """The first difference between two tables of texts; empty if there is none."""
    if unknown := [name for name in stored.columns if name not in rebuilt.columns]:
        return f"no table has a column '{unknown[0]}'"
    if len(stored) != len(rebuilt):
        return f"{len(stored)} rows, and the records give {len(rebuilt)}"
    expected = _texts(rebuilt[list(stored.columns)])
    for name in stored.columns:
        differing = stored[name] != expected[name]
        if differing.any():
            pairs = pd.DataFrame({"stored": stored[name], "expected": expected[name]})[differing]
            numbers = pairs.apply(pd.to_numeric, errors="coerce")
            close = (numbers["stored"] - numbers["expected"]).abs() <= ROUNDING * numbers["expected"].abs()
            wrong = pairs[~close]
            if len(wrong):
                at = int(wrong.index[0])
                row = f" ({rows[at]})" if rows else ""
                one = wrong.iloc[0]
                return f"row {at + 1}{row}, {name}: '{one.stored}', and the records give '{one.expected}'"
    return ""
