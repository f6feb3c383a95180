"""Names for the rows of a table in charts and tables: only as long as needed to distinguish them."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from tokbench.errors import printable
from tokbench.names import FINE_TUNED, PLAIN
from tokbench.rows import plain_models

# Values may contain commas, so a parameter list is split only before `name=`.
PARAMETER = re.compile(r"[(,](?=\w+=)")

_FRACTION = re.compile(r"(?P<name>budget|searched)\([\d.e-]+(?P<end>[,)])")

FEWER_PIXELS = "fewer pixels"
"""The plain model with fewer pixels at several image sizes, as one curve."""

METHOD_SETTINGS = ("schedule", "site", "regime")
"""The settings of a method that the plain model does not have."""


def labels(rows: pd.DataFrame) -> list[str]:
    """A name for each row: the method, with the parameters that differ between the rows of that method.

    Args:
        rows: A table's rows of one model.
    """
    split = [PARAMETER.split(cell_text(params)) for params in rows["params"]]
    pairs = [(cell_text(method), params) for method, params in zip(rows["method"], split, strict=True)]
    shared = {method: set(params) for method, params in pairs}
    for method, params in pairs:
        shared[method] &= set(params)
    own = [(method, ",".join(p for p in params if p not in shared[method])) for method, params in pairs]
    return [f"{method}({params})" if params else method for method, params in own]


def series(rows: pd.DataFrame) -> pd.Series:
    """The curve of each row, over all keeps or budgets: its label, with the settings in which its rows differ.

    Args:
        rows: A table's rows of one model.

    Returns:
        Texts on the rows' index.
    """
    base = pd.Series(labels(rows), index=rows.index, dtype=object)
    names = base.copy()
    for setting in METHOD_SETTINGS:
        values = rows[setting].map(lambda value: without_fraction(cell_text(value)))
        differs = values.groupby(base).transform("nunique") > 1
        if setting == "regime":
            differs |= _fine_tuned_among_others(rows)
        named = differs & ~plain_models(rows)
        names[named] = (names[named] + " " + values[named]).str.rstrip()
    return names


def _fine_tuned_among_others(rows: pd.DataFrame) -> pd.Series:
    """Which rows are fine-tuned, in a table where other methods are not: there the name has to say it."""
    tuned = rows["regime"].eq(FINE_TUNED).fillna(False)
    others = ~tuned & rows["method"].ne(PLAIN)
    return tuned & bool(others.any())


def without_fraction(schedule: str) -> str:
    """A budget or a search without its fraction: these are points of one curve, as keeps are.

    Any other schedule is unchanged.
    """
    found = _FRACTION.match(schedule)
    return schedule if found is None else found["name"] + ("" if found["end"] == ")" else "(") + schedule[found.end() :]


def cell_text(value: Any) -> str:
    """A value of the table as text; empty where it is missing."""
    if value is None or pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    return printable(str(value))
