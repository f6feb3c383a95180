"""A finished comparison as a table for the terminal: one block a model, the plain model first.

What is the same for every row of a block stands once in its title; what differs becomes a column. On a narrow
console the columns of `DROPPED_FIRST` go, in that order, and long methods take several lines: nothing is cut.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import IO

import pandas as pd
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tokbench.names import PLAIN
from tokbench.report.labels import PARAMETER, word
from tokbench.report.lines import HEADS, SETTINGS, Column, blocks, columns, known, legend, title

# Where nobody says how wide a pipe or a file is: what a mail, a log and an issue still show unbroken.
PIPED_WIDTH = 100

# Least needed first; a setting without which the rows are still told apart counts as "setting". What stays
# answers the question: how much faster, and how much less accurate.
DROPPED_FIRST = ("setting", "peak", "img/s", "top-5", "method %", "latency", "saved", "GMACs")

# Characters that a method's name keeps, folded if need be, before intervals go.
LEAST_ROOM = 14


def open_console(file: IO[str] | None = None) -> Console:
    """A console on `file` (standard output by default), where it is no terminal `PIPED_WIDTH` or COLUMNS wide."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


def render(table: pd.DataFrame, console: Console) -> None:
    """Print a comparison: for each model a title, the table, its legend, and what has no result and why.

    The seeds of a stochastic method become one line: top-1 is their mean ± their standard deviation, every
    other number (an interval's ends included) the mean over the seeds that have it.

    Args:
        table: The rows of a comparison, with the columns of the design's row.
        console: Where to print; its width decides how much is shown.

    Raises:
        KeyError: A column is missing, or a verdict is none of `tokbench.stats.times.Verdict`.
    """
    for place, (model, block, lines) in enumerate(blocks(table)):
        console.print(*([""] if place else []), title(model, lines), sep="\n")
        if lines:
            console.print("", _fitting(columns(lines), console), "", legend(lines), sep="\n")
        if notes := _without_result(block):
            console.print("", *notes, sep="\n")


def _without_result(block: pd.DataFrame) -> list[Text]:
    """`method keep — failed: reason`, what has one reason together; a method is skipped at every keep alike."""
    rows = block.to_dict("records")
    varying = [name for name in SETTINGS if len(known(rows, name)) > 1]
    told: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        keep = "" if row["method"] == PLAIN else word(row["keep"])
        told_settings = ((n, word(row[n])) for n in varying)
        settings = [f"{HEADS[n]} {text}" if n in HEADS else text for n, text in told_settings if text]
        skipped = row["status"] == "skipped"
        what = row["label"] if skipped else " ".join(filter(None, (row["label"], keep, *settings)))
        seeds = told.setdefault((row["status"], word(row["reason"])), {}).setdefault(what, [])
        seeds += [] if skipped else filter(None, [word(row["seed"])])
    listed = {
        why: ", ".join(f"{name} (seed {', '.join(seeds)})" if seeds else name for name, seeds in what.items())
        for why, what in told.items()
    }
    colours = {"failed": "red", "skipped": "yellow"}
    return [
        Text.assemble(what, " — ", (s, colours[s]), f": {why}") for (s, why), what in listed.items() if s in colours
    ]


def _fitting(columns: Sequence[Column], console: Console) -> Table:
    """The table with as many of the columns as the console has room for, and at the last without the notes."""
    endless = console.options.update(max_width=10_000)
    for dropped in range(len(DROPPED_FIRST) + 1):
        kept = [column for column in columns if column.key not in DROPPED_FIRST[:dropped]]
        for tall in (False, True):
            table = _table(kept, tall)
            if Measurement.get(console, endless, table).maximum <= console.width:
                return table
    folded = Measurement.get(console, endless, _table(kept, tall=True, room=LEAST_ROOM)).maximum
    return table if folded <= console.width else _table([replace(column, notes=()) for column in kept], tall=True)


def _table(columns: Sequence[Column], tall: bool, room: int | None = None) -> Table:
    """The table of these columns; `tall` gives each parameter a line, `room` limits a method's name."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    rows = []
    for column in columns:
        head = Text.assemble((column.head, "bold"), (f"\n{column.unit}", "dim"))
        if column.key == "method":  # Alone it may break, and that anywhere, so that it is always whole.
            table.add_column(head, overflow="fold", max_width=room)
            labels = [cell.plain for cell in column.cells]
            rows.append([Text("\n ".join(PARAMETER.split(x)).removesuffix(")") if tall else x) for x in labels])
        else:
            table.add_column(head, justify="center" if column.notes else column.justify, no_wrap=True)
            notes = column.notes or [""] * len(column.cells)
            rows.append([Text.assemble(cell, (note, "dim")) for cell, note in zip(column.cells, notes, strict=True)])
    for cells in zip(*rows, strict=True):
        table.add_row(*cells)
    return table
