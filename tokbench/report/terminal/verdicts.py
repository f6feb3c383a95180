"""Published numbers beside counted and measured ones, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokbench.names import PLAIN
from tokbench.published.verdicts import (
    EXPLAINED,
    GMACS,
    NOT_MEASURED,
    NOT_TESTABLE,
    REPRODUCED,
    TOP1,
    UNEXPLAINED,
    VERDICTS,
    count_verdicts,
)

COLOURS = {REPRODUCED: "green", EXPLAINED: "yellow", UNEXPLAINED: "red"}
QUANTITIES = {GMACS: "GMACs", TOP1: "top-1"}


def render_verdicts(frame: pd.DataFrame, console: Console) -> None:
    """Print how many published numbers have each verdict, and those that have a number beside them.

    Args:
        frame: What `tokbench.published.verdicts.compare_claims` gives.
        console: Where to print; no text is cut at 80 columns.
    """
    console.print(_counts(frame))
    beside = frame[~frame["verdict"].isin([NOT_MEASURED, NOT_TESTABLE])]
    for method, rows in beside.groupby("method", sort=False):
        console.print("", Text("plain model" if method == PLAIN else str(method), "bold"), "", _lines(rows), sep="\n")
        for line in rows.to_dict("records"):
            if line["why"]:
                console.print(Text(f"{line['printed']}, {line['paper']}: {line['why']}", "dim", overflow="fold"))
    note = "--json has the others, each with the reason." if len(beside) < len(frame) else ""
    console.print("", Text(note, "dim"), sep="\n")


def _counts(frame: pd.DataFrame) -> Table:
    table = _table("verdict", *QUANTITIES.values(), "meaning")
    for verdict, counts in count_verdicts(frame).iterrows():
        numbers = [Text(str(counts[quantity])) for quantity in QUANTITIES]
        table.add_row(Text(str(verdict), COLOURS.get(str(verdict), "")), *numbers, Text(VERDICTS[str(verdict)]))
    return table


def _lines(rows: pd.DataFrame) -> Table:
    table = _table("model", "setting", "number", "published", "measured", "verdict", "source")
    for line in rows.to_dict("records"):
        digits = ".5g" if line["quantity"] == GMACS else ".2f"
        measured = "" if math.isnan(line["measured"]) else format(line["measured"], digits)
        table.add_row(
            *map(Text, (line["published_model"], _setting(line), QUANTITIES[line["quantity"]])),
            *map(Text, (line["printed"], measured)),
            Text(line["verdict"], COLOURS.get(line["verdict"], "")),
            Text(line["paper"]),
        )
    return table


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        number = heading in ("published", "measured", *QUANTITIES.values())
        table.add_column(Text(heading, "bold"), justify="right" if number else "left", overflow="fold")
    return table


def _setting(line: Mapping[Hashable, Any]) -> str:
    if line["method"] == PLAIN:
        return ""
    keep = "" if pd.isna(line["keep"]) else f"{line['keep']:g}"
    return ", ".join(filter(None, (line["schedule"] or line["published_keep"], keep)))
