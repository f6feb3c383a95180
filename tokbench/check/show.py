"""Findings in words, and the table of them for the terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokbench.check.finding import Finding, Outcome, Report, Row
from tokbench.notation import printable

COLOURS: dict[str, str] = {
    Outcome.INVALID: "magenta",
    Outcome.REGRESSED: "red",
    Outcome.AMBIGUOUS: "yellow",
    Outcome.MOVED: "cyan",
    Outcome.IMPROVED: "green",
}
VERDICTS = {0: "ok", 1: "regressed", 3: "ambiguous", 4: "invalid"}
NAMES = {"tokens_per_block": "tokens", "latency_ms": "latency ms", "gmacs_method": "method gmacs"}

# How many decimals a column's numbers have, and how many at most where fewer would not tell two of them apart.
DECIMALS = {"gmacs": (3, 9), "gmacs_method": (3, 9), "top1": (2, 4), "speedup": (2, 3), "latency_ms": (2, 3)}

# A parameter's value may hold commas, so only what stands before a `name=` divides.
PARAMETER = re.compile(r",(?=\w+=)")
WORDS = {"keep": "keep ", "seed": "seed ", "batch_size": "batch "}


@dataclass(frozen=True)
class Line:
    """A finding as it is shown: `subject` names the row by what tells it from the others."""

    outcome: str
    subject: str
    column: str
    old: str
    new: str
    note: str


HEAD = Line("verdict", "", "column", "old", "new", "change")


def lines(report: Report) -> tuple[Line, ...]:
    """The findings in words, each text on one line and without control characters."""
    return tuple(_line(finding, report.rows) for finding in report.findings)


def subject(row: Row, rows: Sequence[Row]) -> str:
    """A row's method, its keep, and the settings in which the rows differ.

    Args:
        row: One of the rows, or what stands for some of them.
        rows: All of a report's.
    """
    alike = [set(PARAMETER.split(other.params)) for other in rows if other.method == row.method]
    shared = set.intersection(*alike) if alike else set()
    params = ",".join(part for part in PARAMETER.split(row.params) if part not in shared)
    name = f"{row.method}({params})" if params else row.method
    told = [f.name for f in fields(Row) if f.name not in ("method", "params")]
    varying = [n for n in told if len({getattr(other, n) for other in rows} - {None, ""}) > 1]
    settings = [f"{WORDS.get(n, '')}{getattr(row, n)}" for n in varying if getattr(row, n) not in (None, "")]
    return printable(" ".join([name, *settings]))


def summary(report: Report) -> str:
    """`regressed: 2 regressed, 1 moved, 20 of 21 rows unchanged`."""
    counted = Counter(finding.outcome for finding in report.findings)
    told = [f"{counted[outcome]} {outcome}" for outcome in Outcome if counted[outcome]]
    unchanged = sum(not report.about(row) for row in report.rows)
    return f"{VERDICTS[report.exit_code]}: {', '.join([*told, f'{unchanged} of {len(report.rows)} rows unchanged'])}"


def render(report: Report, console: Console) -> None:
    """Print what moved, row by row, what a reader should know besides, and the verdict."""
    console.print(Text(printable(report.title), "bold"))
    shown = lines(report)
    if shown:
        console.print("", _grid(shown, [HEAD]), sep="\n")
    for name in dict.fromkeys(line.subject for line in shown):
        own = [line for line in shown if line.subject == name]
        console.print("", *([Text(name, "bold")] if name else []), _grid(shown, own), sep="\n")
    if shown:
        console.print()
    for note in report.notes:
        console.print(Text(printable(note), "dim"))
    console.print(Text(summary(report), COLOURS.get(_worst(report), "green")))


def _grid(every: Sequence[Line], some: Sequence[Line]) -> Table:
    """Some of the lines, in columns as wide as all of them need."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=max(map(len, Outcome)))
    for name in ("column", "old", "new"):
        width = max(len(getattr(line, name)) for line in (HEAD, *every))
        table.add_column(min_width=width, justify="left" if name == "column" else "right", no_wrap=True)
    table.add_column(overflow="fold")
    for line in some:
        verdict = Text(line.outcome, COLOURS.get(line.outcome, "dim"))
        values = (Text(value, "dim" if line is HEAD else "") for value in (line.column, line.old, line.new))
        table.add_row(verdict, *values, Text(line.note, "dim"))
    return table


def _line(finding: Finding, rows: Sequence[Row]) -> Line:
    name = subject(finding.row, rows) if finding.row else ""
    old, new = (printable(value) for value in _values(finding))
    column = NAMES.get(finding.column, finding.column)
    return Line(finding.outcome, name, column, old, new, printable(finding.note))


def _worst(report: Report) -> Outcome:
    found = {finding.outcome for finding in report.findings}
    return next((outcome for outcome in Outcome if outcome in found), Outcome.IMPROVED)


def _values(finding: Finding) -> tuple[str, str]:
    old, new = finding.old, finding.new
    if isinstance(old, float) and isinstance(new, float):
        least, most = DECIMALS.get(finding.column, (2, 6))
        enough = next((d for d in range(least, most) if f"{old:.{d}f}" != f"{new:.{d}f}"), most)
        return f"{old:.{enough}f}", f"{new:.{enough}f}"
    return "" if old is None else str(old), "" if new is None else str(new)
