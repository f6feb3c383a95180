"""The sections of the page about a method against the others."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from tokbench.report.html.grid import Grid, GridCell, GridColumn
from tokbench.report.versus import COLUMNS, VersusBlock, VersusLine, versus_blocks

VERSUS_LEAD = "The other methods at the same schedule and keep, or at the same budget, on the same images"


def versus_grids(frame: pd.DataFrame) -> Iterator[tuple[VersusBlock, Grid]]:
    """Each block of what `tokbench.results.versus.versus` gives, with its table."""
    for block in versus_blocks(frame):
        shown = [name for name in COLUMNS if any(getattr(line, name) for line in block.lines)]
        columns = tuple(GridColumn(COLUMNS[name], name) for name in shown)
        yield block, Grid(columns, tuple(tuple(_cell(line, name) for name in shown) for line in block.lines))


def _cell(line: VersusLine, name: str) -> GridCell:
    text = getattr(line, name)
    if name == "difference":
        return GridCell(text, line.interval, text)
    if name == "needed":
        return GridCell(text, order=text.strip("~").replace(",", ""))
    return GridCell(text)
