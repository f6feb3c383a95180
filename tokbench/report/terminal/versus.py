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
from tokbench.report.labels import PARAMETER
from tokbench.report.versus import COLUMNS, NOT_COMPARED, VersusBlock, versus_blocks
from tokbench.results.versus import BETTER, WORSE

COLOURS = {BETTER: "green", WORSE: "red"}
LEFT = ("method", "verdict")
BROKEN = ("keep", "needed", "compute")  # headings of two lines
DROPPED_FIRST = ("p", "flips")  # where there is no room; the interval says what they say
MIN_NAME_WIDTH = 14  # longer names are broken where there is no room


def render_versus(frame: pd.DataFrame, console: Console) -> None:
    """Print comparisons with one method, a block for each model.

    Args:
        frame: What `tokbench.results.versus.versus` gives, or several of them joined.
        console: Where to print; its width decides how many columns are shown.
    """
    for index, block in enumerate(versus_blocks(frame)):
        shared = f" · {block.shared}" if block.shared else ""
        title = Text.assemble((f"{block.model} · against {block.versus}", "bold"), (shared, "dim"))
        console.print(*([""] if index else []), title, sep="\n")
        if block.lines:
            console.print("", _fit(block, console), sep="\n")
        notes = (Text(f"{label}: {text}", "yellow" if label == NOT_COMPARED else "dim") for label, text in block.notes)
        console.print("", *notes, sep="\n")


def _fit(block: VersusBlock, console: Console) -> Table:
    """As many columns as fit into the console; where they must, the parameters of a method take a line each."""
    unlimited = console.options.update(max_width=10_000)
    cells = _cells(block)
    for dropped in range(len(DROPPED_FIRST) + 1):
        kept = {name: column for name, column in cells.items() if name not in DROPPED_FIRST[:dropped]}
        for tall in (False, True):
            table = _table(kept, tall)
            if Measurement.get(console, unlimited, table).maximum <= console.width:
                return table
    return table


def _cells(block: VersusBlock) -> dict[str, Sequence[Text]]:
    """The columns by name; those that say nothing are left out."""
    lines = block.lines
    cells: dict[str, list[Text]] = {name: [Text(getattr(line, name)) for line in lines] for name in COLUMNS}
    names = [line.method for line in lines]
    cells["method"] = [Text("" if name == above else name) for above, name in zip(["", *names], names, strict=False)]
    cells["keep"] = [Text(text) for text in aligned([line.keep for line in lines])]
    wide = max(len(line.interval) for line in lines)
    cells["difference"] = [
        Text.assemble(number, (f" {line.interval.ljust(wide)}", "dim"))
        for number, line in zip(aligned([line.difference for line in lines]), lines, strict=True)
    ]
    cells["verdict"] = [Text(line.verdict, COLOURS.get(line.verdict, "")) for line in lines]
    return {name: column for name, column in cells.items() if any(cell.plain.strip() for cell in column)}


def _table(cells: dict[str, Sequence[Text]], tall: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in cells:
        heading = Text(COLUMNS[name].replace(" ", "\n") if name in BROKEN else COLUMNS[name], "bold")
        if name == "method":
            table.add_column(heading, overflow="fold", min_width=MIN_NAME_WIDTH)
        else:
            table.add_column(heading, justify="left" if name in LEFT else "right", no_wrap=True)
    for row in zip(*cells.values(), strict=True):
        table.add_row(*(_tall(cell) if tall and index == 0 else cell for index, cell in enumerate(row)))
    return table


def _tall(name: Text) -> Text:
    return Text("\n ".join(PARAMETER.split(name.plain)).removesuffix(")"))
