"""A report as text: its findings in words, and a table of them for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokbench.check.finding import Finding, Outcome, Report
from tokbench.errors import printable
from tokbench.report.labels import PARAMETER
from tokbench.rows import FIELDS, RowId

OUTCOME_COLOURS: dict[str, str] = {
    Outcome.INVALID: "magenta",
    Outcome.DISAGREES: "red",
    Outcome.REGRESSED: "red",
    Outcome.AMBIGUOUS: "yellow",
    Outcome.MOVED: "cyan",
    Outcome.IMPROVED: "green",
}
COLUMN_NAMES = {"tokens_per_block": "tokens", "latency_ms": "latency ms", "gmacs_method": "method gmacs"}

# The decimals of a column's numbers, and how many at most if fewer would not distinguish the old from the new one.
DECIMALS = {"gmacs": (3, 9), "gmacs_method": (3, 9), "top1": (2, 4), "speedup": (2, 3), "latency_ms": (2, 3)}

SETTING_PREFIXES = {"keep": "keep ", "seed": "seed ", "batch_size": "batch "}


@dataclass(frozen=True)
class FindingText:
    """A finding in words, each text on one line; `row` is the name of its row, empty if it concerns none."""

    outcome: str
    row: str
    column: str
    old: str
    new: str
    note: str


def finding_texts(report: Report) -> tuple[FindingText, ...]:
    """The findings in words, without control characters."""
    return tuple(_finding_text(finding, report.rows) for finding in report.findings)


def row_name(row: RowId, rows: Sequence[RowId]) -> str:
    """A short name of a row: its method, with the parameters and settings in which the rows differ.

    Args:
        row: One of the rows, or a row that stands for several of them.
        rows: All rows of the report.
    """
    parameters = [set(PARAMETER.split(other.params)) for other in rows if other.method == row.method]
    shared = set.intersection(*parameters) if parameters else set()
    params = ",".join(part for part in PARAMETER.split(row.params) if part not in shared)
    name = f"{row.method}({params})" if params else row.method
    names = [name for name in FIELDS if name not in ("method", "params")]
    varying = [n for n in names if len({getattr(other, n) for other in rows} - {None, ""}) > 1]
    settings = [f"{SETTING_PREFIXES.get(n, '')}{getattr(row, n)}" for n in varying if getattr(row, n) not in (None, "")]
    return printable(" ".join([name, *settings]))


def summary(report: Report) -> str:
    """One line: `regressed: 2 regressed, 1 moved, 20 of 21 rows unchanged`."""
    counts = Counter(finding.outcome for finding in report.findings)
    parts = [f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome]]
    unchanged = sum(not report.about(row) for row in report.rows)
    return f"{report.verdict}: {', '.join([*parts, f'{unchanged} of {len(report.rows)} rows unchanged'])}"


def render(report: Report, console: Console) -> None:
    """Print the findings row by row, the notes, and the summary."""
    console.print(Text(printable(report.title), "bold"))
    texts = finding_texts(report)
    if texts:
        heading = _heading(report)
        console.print("", _grid([heading, *texts], [heading], "dim"), sep="\n")
    for name in dict.fromkeys(text.row for text in texts):
        own = [text for text in texts if text.row == name]
        console.print("", *([Text(name, "bold")] if name else []), _grid([_heading(report), *texts], own), sep="\n")
    if texts:
        console.print()
    for note in report.notes:
        console.print(Text(printable(note), "dim"))
    console.print(Text(summary(report), OUTCOME_COLOURS.get(_worst(report), "green")))


def _heading(report: Report) -> FindingText:
    return FindingText("verdict", "", "column", *report.sides, "change" if "old" in report.sides else "difference")


def _grid(all_texts: Sequence[FindingText], shown: Sequence[FindingText], colour: str = "") -> Table:
    """A table of some of the texts, with columns wide enough for all of them."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=max(map(len, Outcome)))
    for name in ("column", "old", "new"):
        width = max(len(getattr(text, name)) for text in all_texts)
        table.add_column(min_width=width, justify="left" if name == "column" else "right", no_wrap=True)
    table.add_column(overflow="fold")
    for text in shown:
        verdict = Text(text.outcome, OUTCOME_COLOURS.get(text.outcome, "dim"))
        values = (Text(value, colour) for value in (text.column, text.old, text.new))
        table.add_row(verdict, *values, Text(text.note, "dim"))
    return table


def _finding_text(finding: Finding, rows: Sequence[RowId]) -> FindingText:
    name = row_name(finding.row, rows) if finding.row else ""
    old, new = (printable(value) for value in _value_texts(finding))
    column = COLUMN_NAMES.get(finding.column, finding.column)
    return FindingText(finding.outcome, name, column, old, new, printable(finding.note))


def _worst(report: Report) -> Outcome:
    found = {finding.outcome for finding in report.findings}
    return next((outcome for outcome in Outcome if outcome in found), Outcome.IMPROVED)


def _value_texts(finding: Finding) -> tuple[str, str]:
    """The old and the new value, with enough decimals to distinguish them."""
    old, new = finding.old, finding.new
    if isinstance(old, float) and isinstance(new, float):
        least, most = DECIMALS.get(finding.column, (2, 6))
        enough = next((d for d in range(least, most) if f"{old:.{d}f}" != f"{new:.{d}f}"), most)
        return f"{old:.{enough}f}", f"{new:.{enough}f}"
    return "" if old is None else str(old), "" if new is None else str(new)
