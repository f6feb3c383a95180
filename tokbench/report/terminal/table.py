"""A finished comparison as a table for the terminal: one block for each model, the plain model first.

Settings that all rows of a block share are in its title; the others are columns. On a narrow console columns are left
out in the order of `DROPPED_FIRST`, and long method names take several lines: no text is cut.
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
from tokbench.report.labels import PARAMETER, cell_text
from tokbench.report.lines import (
    SETTING_HEADINGS,
    SETTINGS,
    TextColumn,
    block_title,
    distinct_values,
    legend,
    model_blocks,
    text_columns,
)
from tokbench.results.columns import BY_INTERVAL
from tokbench.results.table import NOT_MEASURED

# The width for pipes and files, which have none: fits into mails, logs and issues without wrapping.
PIPED_WIDTH = 100

# The least important first, those settings above all that are not needed to identify a row. The columns that remain
# answer the main question: how much faster, and how much less accurate.
DROPPED_FIRST = (
    "setting",
    *sorted(
        (name for name, column in BY_INTERVAL.items() if column.dropped > 1), key=lambda n: -BY_INTERVAL[n].dropped
    ),
)

# A method's name keeps at least this many characters per line before the intervals are left out.
MIN_NAME_WIDTH = 14


def open_console(file: IO[str] | None = None) -> Console:
    """A console on `file`, by default standard output; `PIPED_WIDTH` or COLUMNS wide if that is not a terminal."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


def render(table: pd.DataFrame, console: Console) -> None:
    """Print a comparison: for each model a title, the table, its legend, and the rows without a result with the reason.

    Remarks that all rows share are printed below; the others are in the table's files.

    The seeds of a stochastic method share one row: top-1 is their mean ± their standard deviation, every other number
    (interval ends included) the mean over the seeds that have it.

    Args:
        table: The rows of a comparison, with the columns of the design's row.
        console: Where to print; its width decides how many columns are shown.

    Raises:
        KeyError: A verdict is not one of `tokbench.stats.times.Verdict`.
    """
    for index, (model, block, rows) in enumerate(model_blocks(table)):
        console.print(*([""] if index else []), block_title(model, rows), sep="\n")
        if rows:
            columns, text_table = _fit(text_columns(rows), console)
            notes = legend(rows, {column.key for column in columns})
            console.print("", text_table, "", notes, sep="\n")
        if remarks := _of_all_rows(block):
            console.print("", *remarks, sep="\n")
        if reasons := _without_result(block):
            console.print("", *reasons, sep="\n")


def _of_all_rows(block: pd.DataFrame) -> list[Text]:
    """The remarks that all measured rows have, such as why a measurement is not possible on this machine."""
    measured = block[block["status"].eq("ok")].reindex(columns=["remarks"])
    remarks = [cell_text(text).split("; ") for text in measured["remarks"]]
    shared = [remark for remark in (remarks[0] if remarks else []) if all(remark in of_row for of_row in remarks)]
    return [Text(f"All rows: {remark}") for remark in shared if remark]


def _without_result(block: pd.DataFrame) -> list[Text]:
    """`method keep — failed: reason`, a line for each reason. Skipped methods are named without keep.

    What waits for another part or a later run has not failed, and neither has a row without some of its numbers.
    """
    rows = block.to_dict("records")
    varying = [name for name in SETTINGS if len(distinct_values(rows, name)) > 1]
    seeds_by_reason: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        keep = "" if row["method"] == PLAIN else cell_text(row["keep"])
        values = ((name, cell_text(row[name])) for name in varying)
        settings = [f"{SETTING_HEADINGS[n]} {text}" if n in SETTING_HEADINGS else text for n, text in values if text]
        skipped = row["status"] == "skipped"
        name = row["label"] if skipped else " ".join(filter(None, (row["label"], keep, *settings)))
        key = (row["status"], cell_text(row["reason"]))
        seeds = seeds_by_reason.setdefault(key, {}).setdefault(name, [])
        seeds += [] if skipped else filter(None, [cell_text(row["seed"])])
    listed = {
        key: ", ".join(f"{name} (seed {', '.join(seeds)})" if seeds else name for name, seeds in names.items())
        for key, names in seeds_by_reason.items()
    }
    colours = {"failed": "red", "skipped": "yellow"}
    return [
        Text(f"{names} — {NOT_MEASURED}")
        if reason == NOT_MEASURED
        else Text.assemble(names, " — ", (f"{status}: ", colours[status]) if status in colours else "", reason)
        for (status, reason), names in listed.items()
        if reason
    ]


def _fit(columns: Sequence[TextColumn], console: Console) -> tuple[Sequence[TextColumn], Table]:
    """As many of the columns as fit into the console, and the table of them; as a last resort without intervals."""
    unlimited = console.options.update(max_width=10_000)
    present = {column.key for column in columns}
    droppable = [name for name in DROPPED_FIRST if name in present]  # others would only measure the same table again
    for dropped in range(len(droppable) + 1):
        kept = [column for column in columns if column.key not in droppable[:dropped]]
        for tall in (False, True):
            table = _table(kept, tall)
            if Measurement.get(console, unlimited, table).maximum <= console.width:
                return kept, table
    narrowest = Measurement.get(console, unlimited, _table(kept, tall=True, name_width=MIN_NAME_WIDTH)).maximum
    if narrowest > console.width:
        table = _table([replace(column, suffixes=()) for column in kept], tall=True)
    return kept, table


def _table(columns: Sequence[TextColumn], tall: bool, name_width: int | None = None) -> Table:
    """The table of these columns; `tall` puts each parameter on its own line, `name_width` limits method names."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    cells_by_column = []
    for column in columns:
        heading = Text.assemble((column.heading, "bold"), (f"\n{column.unit}", "dim"))
        if column.key == "method":  # The only column that may break, at any character, so that names are never cut.
            table.add_column(heading, overflow="fold", max_width=name_width)
            names = [cell.plain for cell in column.cells]
            cells_by_column.append(
                [Text("\n ".join(PARAMETER.split(name)).removesuffix(")") if tall else name) for name in names]
            )
        else:
            table.add_column(heading, justify="center" if column.suffixes else column.justify, no_wrap=True)
            suffixes = column.suffixes or [""] * len(column.cells)
            cells_by_column.append(
                [Text.assemble(cell, (suffix, "dim")) for cell, suffix in zip(column.cells, suffixes, strict=True)]
            )
    for cells in zip(*cells_by_column, strict=True):
        table.add_row(*cells)
    return table
