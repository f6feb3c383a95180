"""Published numbers for the terminal: beside what was measured, and as a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN = "none"


def render_claims(frame: pd.DataFrame, console: Console) -> None:
    """Print measured rows with the published numbers that say the same, below each model the notes and sources.

    Args:
        frame: What `tokbench.published.claims.beside` gives.
        console: Where to print; nothing is cut at 80 columns.
    """
    for model, block in frame.groupby("model", sort=False):
        rows = block.to_dict("records")
        table = _table(
            ["setting", "GMACs", "published", "top-1", "published", "Δ", "source"], folded=("setting", "source")
        )
        for row in rows:
            gmacs = (_number(row["gmacs"], ".3f"), _printed(row["claimed_gmacs"]))
            top1 = (_number(row["top1"], ".2f"), _printed(row["claimed_top1"]), _number(row["difference"], "+.2f"))
            table.add_row(*map(Text, (_setting(row), *gmacs, *top1, row["paper"])))
        console.print("", Text.assemble((f"Published · {model}", "bold")), "", table, "", sep="\n")
        for line in _remarks(rows):
            console.print(Text(line, "dim", overflow="fold"))


def render_published(frame: pd.DataFrame, console: Console) -> None:
    """Print published numbers, those of one method and source together.

    Args:
        frame: Rows of `tokbench.published.claims.published`.
        console: Where to print; nothing is cut at 80 columns.
    """
    for number, (_, block) in enumerate(frame.groupby(["method", "paper", "source"], sort=False)):
        rows = block.to_dict("records")
        columns = {
            "model": [row["published_model"] for row in rows],
            "regime": [row["regime"] for row in rows],
            "schedule, keep": [_schedule(row) for row in rows],
            "GMACs": [_printed(row["gmacs"]) for row in rows],
            "top-1": [_printed(row["top1"]) for row in rows],
            "read from": [row["read_from"] for row in rows],
        }
        told = {head: cells for head, cells in columns.items() if any(cells)}
        name = "plain model" if rows[0]["method"] == PLAIN else rows[0]["method"]
        head = Text.assemble((name, "bold"), f" · {rows[0]['paper']}", (f"\n{_address(rows[0])}", "dim"))
        head.overflow = "fold"
        table = _table(list(told), folded=("model", "schedule, keep"))
        for cells in zip(*told.values(), strict=True):
            table.add_row(*map(Text, cells))
        console.print(*([""] if number else []), head, table, sep="\n")


def _table(heads: Sequence[str], folded: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for head in heads:
        if head in folded:
            table.add_column(Text(head, "bold"), overflow="fold")
        else:
            table.add_column(Text(head, "bold"), justify="left" if head in ("regime", "read from") else "right")
    return table


def _setting(row: dict[Any, Any]) -> str:
    if row["method"] == PLAIN:
        return "plain model"
    keep = "" if pd.isna(row["keep"]) else f" keep {row['keep']:g}"
    return f"{row['method']} {row['schedule']}{keep}"


def _schedule(row: dict[Any, Any]) -> str:
    """The schedule in our terms where it is known, else what the source printed."""
    keep = "" if pd.isna(row["keep"]) else f"{row['keep']:g}"
    ours = ", ".join(filter(None, (row["schedule"], keep if row["method"] != PLAIN else "")))
    return ours or row["published_keep"]


def _remarks(rows: Sequence[dict[Any, Any]]) -> list[str]:
    """Each of them once: why there is no difference, what else differs, where it was published."""
    reasons = [f"no Δ: {row['not_comparable']}" for row in rows if row["not_comparable"]]
    notes = [f"{row['paper']}: {row['note']}" for row in rows if row["note"]]
    figures = [f"{row['paper']}: read from a figure" for row in rows if row["read_from"] == "figure"]
    printed = [f"{row['paper']}: {row['published_keep']}" for row in rows if "(" in row["published_keep"]]
    sources = [f"{row['paper']}: {_address(row)}" for row in rows]
    return list(dict.fromkeys((*reasons, *notes, *figures, *printed, *sources)))


def _address(row: dict[Any, Any]) -> str:
    """Where it was published, without where a copy of the table was read."""
    return str(row["source"]).partition(";via=")[0]


def _printed(value: float) -> str:
    """A published number with the digits that it was published with."""
    return _number(value, "g")


def _number(value: float, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)
