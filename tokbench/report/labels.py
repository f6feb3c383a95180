"""What the rows of a table are called in pictures and tables: as short as tells them apart."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from tokbench.notation import printable

# A parameter's value may hold commas, so only what stands before a `name=` divides.
PARAMETER = re.compile(r"[(,](?=\w+=)")

SETTINGS = ("schedule", "site", "regime")


def labels(rows: pd.DataFrame) -> list[str]:
    """The methods, each with the parameters that not all rows of that method share.

    Args:
        rows: A table's rows of one model.
    """
    split = [PARAMETER.split(word(params)) for params in rows["params"]]
    pairs = [(word(method), params) for method, params in zip(rows["method"], split, strict=True)]
    shared = {method: set(params) for method, params in pairs}
    for method, params in pairs:
        shared[method] &= set(params)
    own = [(method, ",".join(p for p in params if p not in shared[method])) for method, params in pairs]
    return [f"{method}({params})" if params else method for method, params in own]


def series(rows: pd.DataFrame) -> pd.Series:
    """What belongs on one curve over the keeps: labels, with the settings in which rows of one label differ.

    Args:
        rows: A table's rows of one model.

    Returns:
        Texts on the rows' index.
    """
    names = pd.Series(labels(rows), index=rows.index, dtype=object)
    told = names.copy()
    for setting in SETTINGS:
        values = rows[setting].map(word)
        several = values.groupby(names).transform("nunique") > 1
        told[several] = (told[several] + " " + values[several]).str.rstrip()
    return told


def word(value: Any) -> str:
    """A cell of the table as text; nothing where it is missing."""
    if value is None or pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    return printable(str(value))
