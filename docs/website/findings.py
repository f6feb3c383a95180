"""The first page, and the tables in it: `docs/findings.md`, in which each block of `rows` becomes a table.

A block says in TOML which rows of which run are shown:

    ```rows
    run = "reference/embedded"
    where = "keep == 0.5 and method != 'none'"
    columns = ["method", "gmacs_saved", "speedup", "delta_top1"]
    sort = "-delta_top1"
    first = 5
    ```

Below the table stand the command that measured the run and links to the run and to the leaderboard.
"""

from __future__ import annotations

import html
import re
import tomllib
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from tokbench.errors import UserError
from tokbench.report.html.grid import GridCell, selected_grid
from tokbench.report.html.rerun import rerun_commands
from tokbench.report.labels import labels
from tokbench.report.markdown import markdown_table
from tokbench.results import Results
from website.records import AGAIN
from website.runs import data, leaderboard_link, machine
from website.source import Source

FINDINGS = "findings.md"
WRITTEN = Path(__file__).parents[1] / FINDINGS
HEAD = "---\nhide: [navigation]\n---\n\n"

_BLOCK = re.compile(r"^```rows\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Shown(BaseModel):
    """Which rows a block shows.

    Attributes:
        run: The run's name, its path below `results/`.
        where: A query on the columns of the run's table, as pandas reads it; empty for all rows.
        columns: The columns, in order.
        sort: The column to sort by, with `-` before it for the largest first; empty for the table's order.
        first: How many rows at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    where: str = ""
    columns: tuple[str, ...] = ("method", "gmacs_saved", "speedup", "top1", "delta_top1")
    sort: str = ""
    first: int = 100


def pages(source: Source) -> dict[str, str]:
    """The first page."""
    return {"index.md": HEAD + with_tables(WRITTEN.read_text(encoding="utf-8"), source)}


def with_tables(text: str, source: Source) -> str:
    """A page with a table for each of its blocks.

    Raises:
        UserError: A block names no run, rows or columns that there are.
    """
    return _BLOCK.sub(lambda block: "\n".join(_table(_read(block[1]), source)), text)


def _read(block: str) -> Shown:
    try:
        return Shown.model_validate(tomllib.loads(block))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise UserError(f"a block of rows in {FINDINGS} is wrong ({str(error).splitlines()[0]}): {block!r}") from None


def _table(shown: Shown, source: Source) -> list[str]:
    run = next((one for one in source.runs if source.name(one) == shown.run), None)
    if run is None:
        known = ", ".join(map(source.name, source.runs))
        raise UserError(
            f"{FINDINGS} names the run {shown.run!r}, which is not in {source.results}: choose from {known}"
        )
    rows = _chosen(run, shown)
    grid = selected_grid(rows.assign(method=labels(rows)), shown.columns)
    numeric = [index for index, cells in enumerate(zip(*grid.rows, strict=True)) if any(cell.order for cell in cells)]
    headings = [html.escape(column.heading) for column in grid.columns]
    command = rerun_commands(run.plan, AGAIN).compare
    links = f"[{source.name(run)}](runs/{source.anchor(run)}.md)"
    return [
        *markdown_table(headings, [[_cell(cell) for cell in cells] for cells in grid.rows], numeric),
        "",
        f"Run {links}: {html.escape(machine(run))}; {html.escape(data(run))}. "
        f"{leaderboard_link('All its rows', '', run=source.anchor(run))}. Measured by",
        "",
        "```",
        command,
        "```",
    ]


def _chosen(run: Results, shown: Shown) -> pd.DataFrame:
    try:
        rows = run.table.query(shown.where) if shown.where else run.table
        missing = [name for name in shown.columns if name not in rows]
        if missing:
            raise ValueError(f"there is no column {missing[0]}")
        if shown.sort:
            rows = rows.sort_values(
                shown.sort.removeprefix("-"), ascending=not shown.sort.startswith("-"), kind="stable"
            )
    except (KeyError, ValueError, SyntaxError, NameError) as error:
        raise UserError(f"a block of rows in {FINDINGS} cannot be read ({error}): {shown}") from None
    if rows.empty:
        raise UserError(f"a block of rows in {FINDINGS} shows nothing: no row of {shown.run} has {shown.where}")
    return rows.head(shown.first)


def _cell(cell: GridCell) -> str:
    text = html.escape(cell.text).replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")
    return f"{text} <small>{html.escape(cell.note)}</small>" if cell.note else text
