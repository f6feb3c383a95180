"""A method against the others, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tokbench.report.digits import aligned
from tokbench.report.versus import HEADINGS, UNEQUAL, VersusBlock, versus_blocks
from tokbench.results.versus import BETTER, WORSE

COLOURS = {BETTER: "green", WORSE: "red"}
LEFT = ("method", "verdict")
DROPPED_FIRST = ("p", "won/lost")  # where there is no room; the interval says what they say


def render_versus(frame: pd.DataFrame, console: Console) -> None:
    """Print comparisons with one method, a block for each model.

    Args:
        frame: What `tokbench.results.versus.versus` gives, or several of them joined.
        console: Where to print; its width decides how many columns are shown.
    """
    for index, block in enumerate(versus_blocks(frame)):
        title = Text.assemble((f"{block.model} · against {block.versus}", "bold"), (f" · {block.shared}", "dim"))
        console.print(*([""] if index else []), title, sep="\n")
        if block.lines:
            console.print("", _fit(block, console), sep="\n")
        for text in block.left_out:
            console.print("", Text(text, "yellow"), sep="\n")
        console.print("", *(Text(note, "dim") for note in block.notes), sep="\n")


def _fit(block: VersusBlock, console: Console) -> Table:
    unlimited = console.options.update(max_width=10_000)
    cells = _cells(block)
    for dropped in range(len(DROPPED_FIRST) + 1):
        table = _table({name: column for name, column in cells.items() if name not in DROPPED_FIRST[:dropped]})
        if Measurement.get(console, unlimited, table).maximum <= console.width:
            break
    return table


def _cells(block: VersusBlock) -> dict[str, Sequence[Text]]:
    """The columns by heading; those that say nothing are left out."""
    lines = block.lines
    numbers = aligned([line.difference for line in lines])
    intervals = [line.interval for line in lines]
    wide = max(map(len, intervals))
    columns: list[list[Text]] = [
        [Text(line.method) for line in lines],
        [Text(text) for text in aligned([line.keep for line in lines])],
        [
            Text.assemble(number, (f" {text.ljust(wide)}", "dim"))
            for number, text in zip(numbers, intervals, strict=True)
        ],
        [Text(line.flips) for line in lines],
        [Text(line.p) for line in lines],
        [Text(line.verdict, COLOURS.get(line.verdict, "")) for line in lines],
        [Text(line.needed) for line in lines],
        [Text(f"{line.gmacs} {UNEQUAL if line.unequal else ' '}") for line in lines],
        [Text(line.versus_gmacs) for line in lines],
    ]
    if not block.unequal:
        columns[-2:] = [[], []]
    headings = [heading.format(versus=block.versus) for heading in HEADINGS]
    return {
        name: column
        for name, column in zip(headings, columns, strict=True)
        if any(cell.plain.strip() for cell in column)
    }


def _table(cells: dict[str, Sequence[Text]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in cells:
        heading = Text(name.replace("images needed", "images\nneeded"), "bold")
        if name == "method":
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="left" if name in LEFT else "right", no_wrap=True)
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    return table
