"""Published numbers for the terminal: beside the measured ones, and as a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokbench.names import PLAIN


def render_claims(frame: pd.DataFrame, console: Console) -> None:
    """Print measured rows beside the published numbers of the same setting, for each model, with notes and sources.

    Models that were only measured on a part of the validation images share one line instead: their accuracies cannot
    be compared with published ones.

    Args:
        frame: What `tokbench.published.claims.beside` gives.
        console: Where to print; no text is cut at 80 columns.
    """
    partial: dict[str, None] = {}
    for model, block in frame.groupby("model", sort=False):
        rows = block.to_dict("records")
        if all(row["not_comparable"] and not pd.isna(row["top1"]) for row in rows):
            partial |= dict.fromkeys(row["not_comparable"] for row in rows)
            continue
        table = _table(
            ["setting", "GMACs", "published", "top-1", "published", "Δ", "source"], wrapping=("setting", "source")
        )
        for row in rows:
            gmacs = (_number(row["gmacs"], ".3f"), _as_published(row["claimed_gmacs"]))
            top1 = (_number(row["top1"], ".2f"), _as_published(row["claimed_top1"]), _number(row["difference"], "+.2f"))
            table.add_row(*map(Text, (_setting(row), *gmacs, *top1, row["paper"])))
        console.print("", Text.assemble((f"Published · {model}", "bold")), "", table, "", sep="\n")
        for line in _remarks(rows):
            console.print(Text(line, "dim", overflow="fold"))
    for reason in partial:
        console.print(
            "",
            Text(f"Published numbers are not comparable: {reason} (tokbench list claims shows them)", "dim"),
            sep="\n",
        )


def render_published(frame: pd.DataFrame, console: Console) -> None:
    """Print published numbers, grouped by method and source.

    Args:
        frame: Rows of `tokbench.published.claims.published`.
        console: Where to print; no text is cut at 80 columns.
    """
    for index, (_, block) in enumerate(frame.groupby(["method", "paper", "source"], sort=False)):
        rows = block.to_dict("records")
        columns = {
            "model": [row["published_model"] for row in rows],
            "regime": [row["regime"] for row in rows],
            "schedule, keep": [_schedule(row) for row in rows],
            "GMACs": [_as_published(row["gmacs"]) for row in rows],
            "top-1": [_as_published(row["top1"]) for row in rows],
            "read from": [row["read_from"] for row in rows],
        }
        shown = {heading: cells for heading, cells in columns.items() if any(cells)}
        name = "plain model" if rows[0]["method"] == PLAIN else rows[0]["method"]
        title = Text.assemble((name, "bold"), f" · {rows[0]['paper']}", (f"\n{_address(rows[0])}", "dim"))
        title.overflow = "fold"
        table = _table(list(shown), wrapping=("model", "schedule, keep"))
        for cells in zip(*shown.values(), strict=True):
            table.add_row(*map(Text, cells))
        console.print(*([""] if index else []), title, table, sep="\n")


def _table(headings: Sequence[str], wrapping: Sequence[str]) -> Table:
    """An empty table; the cells of the columns named in `wrapping` may take several lines."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        if heading in wrapping:
            table.add_column(Text(heading, "bold"), overflow="fold")
        else:
            table.add_column(Text(heading, "bold"), justify="left" if heading in ("regime", "read from") else "right")
    return table


def _setting(row: dict[Any, Any]) -> str:
    if row["method"] == PLAIN:
        return "plain model"
    keep = "" if pd.isna(row["keep"]) else f" keep {row['keep']:g}"
    return f"{row['method']} {row['schedule']}{keep}"


def _schedule(row: dict[Any, Any]) -> str:
    """The schedule in tokbench's notation if known, else as the source describes it."""
    keep = "" if pd.isna(row["keep"]) else f"{row['keep']:g}"
    ours = ", ".join(filter(None, (row["schedule"], keep if row["method"] != PLAIN else "")))
    return ours or row["published_keep"]


def _remarks(rows: Sequence[dict[Any, Any]]) -> list[str]:
    """Why there is no difference, what else differs, and the sources; each remark once."""
    reasons = [f"no Δ: {row['not_comparable']}" for row in rows if row["not_comparable"]]
    notes = [f"{row['paper']}: {row['note']}" for row in rows if row["note"]]
    figures = [f"{row['paper']}: read from a figure" for row in rows if row["read_from"] == "figure"]
    keeps = [f"{row['paper']}: {row['published_keep']}" for row in rows if "(" in row["published_keep"]]
    sources = [f"{row['paper']}: {_address(row)}" for row in rows]
    return list(dict.fromkeys((*reasons, *notes, *figures, *keeps, *sources)))


def _address(row: dict[Any, Any]) -> str:
    """Where a number was published, without the address of the copy that was read."""
    return str(row["source"]).partition(";via=")[0]


def _as_published(value: float) -> str:
    """A published number with the digits that the source gives."""
    return _number(value, "g")


def _number(value: float, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)
