"""Texts about rows, each once, labelled with the names of the rows that have it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import pandas as pd

from tokbench.names import PLAIN
from tokbench.report.html.section import LabelledText
from tokbench.report.labels import cell_text, labels, series

SETTING_PREFIXES = {"batch_size": "batch ", "mode": ""}


def group_by_text(rows: pd.DataFrame, column: str, names: Mapping[Hashable, str]) -> tuple[LabelledText, ...]:
    """The texts of a column, each once, labelled with the rows that have it; seeds of a row are listed together."""
    seeds_by_text: dict[str, dict[str, list[str]]] = {}
    for index, row in rows.iterrows():
        seeds = seeds_by_text.setdefault(cell_text(row[column]), {}).setdefault(names[index], [])
        seeds += filter(None, [cell_text(row["seed"])])
    return tuple(
        LabelledText(
            ", ".join(f"{name} (seed {', '.join(seeds)})" if seeds else name for name, seeds in same.items()), text
        )
        for text, same in seeds_by_text.items()
    )


def row_names(table: pd.DataFrame) -> dict[Hashable, str]:
    """The rows' names without their seeds, by the table's index."""
    varying = [name for name in SETTING_PREFIXES if table[name].nunique() > 1]
    several = table["model"].nunique() > 1
    names = {}
    for model, rows in table.groupby("model", sort=False):
        for (index, row), curve in zip(rows.iterrows(), series(rows), strict=True):
            keep = "" if row["method"] == PLAIN else cell_text(row["keep"])
            settings = [
                f"keep {keep}" if keep else "",
                *(f"{SETTING_PREFIXES[name]}{cell_text(row[name])}" for name in varying),
            ]
            names[index] = " ".join(filter(None, (curve, *settings, f"in {cell_text(model)}" if several else "")))
    return names


def method_names(table: pd.DataFrame) -> dict[Hashable, str]:
    """The names of the rows' methods, by the table's index."""
    models = [rows for _, rows in table.groupby("model", sort=False)]
    return {index: name for rows in models for index, name in zip(rows.index, labels(rows), strict=True)}
