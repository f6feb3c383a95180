"""Live views to look at: opened on a directory, drawn as lines of text, and fed with the records of a stored run."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from stored_results import REFERENCE, Json, read_records, write_plan

from tokbench.report.terminal.live import LiveView
from tokbench.results import PlannedRow, Results
from tokbench.results.plan import read_plan
from tokbench.results.store import Records, Store


def view_of(directory: Path, records: Records, console: Console, *, disable: bool = False) -> LiveView:
    return LiveView(Results(directory, records), console, disable=disable)


def written(console: Console) -> str:
    """Everything that was written to a console."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def screen(text: str) -> list[str]:
    """The lines on a terminal after this text; it supports the control sequences that the live view uses."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
        if token == "\r":
            column = 0
        elif token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        elif token.startswith("\x1b"):
            row -= int(token[2:-1]) if token.endswith("A") else 0
            assert row >= 0
            lines[row] = "" if token.endswith("K") else lines[row]
        else:
            before, after = lines[row][:column].ljust(column), lines[row][column + len(token) :]
            lines[row], column = before + token + after, column + len(token)
    return [line.rstrip() for line in lines]


def picture(view: Progress, width: int = 80, height: int = 24) -> list[str]:
    """The lines of a view as drawn now."""
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(view)
    return [line.rstrip() for line in written(console).splitlines()]


def rows_of(directory: Path) -> list[PlannedRow]:
    return list(read_plan(directory).rows)


def set_rows(directory: Path, rows: list[PlannedRow]) -> None:
    write_plan(directory, replace(read_plan(directory), rows=tuple(rows)))


def many(directory: Path, count: int) -> list[PlannedRow]:
    """Write a plan with this many rows, each with its own measurements."""
    plain, *others = rows_of(directory)
    rows = [
        replace(row, id=replace(row.id, seed=number), keys={kind: f"{kind} {number}" for kind in row.keys})
        for number, row in enumerate([plain, *others * count][:count])
    ]
    set_rows(directory, rows)
    return rows


def begin(view: LiveView, kind: str, key: str) -> None:
    """Start one measurement."""
    view.planned(kind, 1)
    view.measuring(kind, key)


def replay(store: Store, view: LiveView) -> Iterator[Json]:
    """Replay the reference run, yielding each record while its measurement is running."""
    for kind, group in groupby(read_records(REFERENCE), key=lambda record: str(record["kind"])):
        records = list(group)
        view.planned(kind, len(records))
        for record in records:
            view.measuring(kind, record["key"].partition("/")[0])
            yield record
            store.add(kind, record["key"], record["value"])
            view.measured(kind)


def macs_record(total: float) -> Json:
    """What is stored of a count."""
    return {"total": int(total), "method": 0, "tokens": [64]}
