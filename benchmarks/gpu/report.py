"""The report of a run: the machine, what became of each part, and each part's table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from gpu.part import Part, Result
from gpu.run import ERRORS, OUTPUT
from tokbench import load
from tokbench.errors import UserError
from tokbench.files import write_atomically
from tokbench.kinds import KINDS
from tokbench.report.labels import labels
from tokbench.report.markdown import escape, markdown_table
from tokbench.results.plan import PLAN
from tokbench.results.table import NOT_MEASURED

REPORT = "REPORT.md"
LINES = 80  # of a part's output

SETTINGS = ("model", "dtype", "mode", "batch_size", "keep")  # above the table where all rows have the same
LEFT_OUT = """
    tokens_per_block gmacs_saved gmacs_method gmacs_lo gmacs_hi rounds latency_ms_p90 latency_ms_p99 noise_floor
    precision_reached other_load
""".split()  # table.csv has them


def write_report(
    out: Path, command: str, machine: Mapping[str, Any], parts: Sequence[Part], results: Sequence[Result]
) -> None:
    """Write the report of the parts that have ended so far.

    Args:
        out: The folder of the run.
        command: What started it.
        machine: The content of `environment.json`.
        parts: All parts.
        results: Of those that have ended.
    """
    text = "\n".join(_lines(out, command, machine, parts, results)) + "\n"
    write_atomically(out / REPORT, lambda path: path.write_text(text, encoding="utf-8"))


def _lines(
    out: Path, command: str, machine: Mapping[str, Any], parts: Sequence[Part], results: Sequence[Result]
) -> Iterator[str]:
    about = {part.name: part.about for part in parts}
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    facts = [f"{name} {value}, " for name, value in (machine["gpu"] or {}).items() if value is not None]
    yield from (f"# {escape(machine['device_name'])}", "")
    yield f"Written on {datetime.now(UTC):%Y-%m-%d at %H:%M} UTC by `{command}`."
    yield "[environment.json](environment.json) describes the machine:"
    yield f"{escape(''.join(facts))}{machine['cpus']} CPUs, {escape(machine['platform'])}; {versions}."
    yield ""
    cells = [
        (f"[{one.name}](#{one.name})" if _ran(one) else one.name, one.state, f"{one.seconds:.0f}", escape(one.reason))
        for one in results
    ]
    yield from markdown_table(("part", "state", "seconds", "why"), cells, {2})
    for one in filter(_ran, results):
        yield from ("", f"## {one.name}", "", f"{escape(about[one.name])}: {one.state}, {one.ended}.", "")
        yield from ("```", one.command, "```", "", *_found(out / one.name, one))


def _ran(result: Result) -> bool:
    return result.state not in ("skipped", "not started")


def _found(folder: Path, result: Result) -> Iterator[str]:
    """The table of a comparison, finished or not; of another program, the end of its output."""
    if (folder / PLAN).is_file():
        try:
            yield from comparison_table(folder)
        except UserError as error:  # it was killed while it wrote, say
            yield escape(str(error))
        return
    files = (OUTPUT, ERRORS) if result.state == "failed" else (OUTPUT,)
    yield from ("```", *(line for file in files for line in _text(folder / file)[-LINES:]), "```")


def comparison_table(folder: Path) -> Iterator[str]:
    """The rows of a results directory that were measured, in Markdown: the columns of the kinds that were asked for.

    Args:
        folder: Of a comparison of one model, finished or not.

    Raises:
        UserError: The directory is damaged.
    """
    results = load(folder)
    rows = results.table.assign(method=lambda table: labels(table))
    kinds = [KINDS[name] for name in results.plan.suite.only if name in KINDS]
    columns = [column for kind in kinds for column in kind.columns if column.name not in LEFT_OUT]
    ends = {end for column in columns for end in column.ends or ()}
    shown = [column for column in columns if column.name not in ends and rows[column.name].map(_given).any()]
    measured = rows[rows[[column.name for column in shown]].map(_given).any(axis=1)]
    differing = [name for name in SETTINGS if rows[name].nunique() > 1]
    yield escape(", ".join(f"{name} {rows[name].iloc[0]}" for name in SETTINGS if name not in differing))
    yield ""
    cells = [
        [escape(text) for text in (row["method"], *(_cell(row[name]) for name in differing))]
        + [escape(_cell(row[column.name]) + _interval(row, column.ends)) for column in shown]
        for row in measured.to_dict("records")
    ]
    headings = [escape(name) for name in ("method", *differing, *(column.name for column in shown))]
    yield from markdown_table(headings, cells, range(1, len(headings)))
    lacking = rows[rows["status"].ne("ok") | ~rows.index.isin(measured.index)]
    lost = lacking.assign(why=[_why(row) for row in lacking.to_dict("records")])
    if len(lost):
        yield ""
    for why, some in lost.groupby("why", sort=False):
        methods = ", ".join(dict.fromkeys(some["method"]))
        yield f"- {len(some)} of {len(rows)} rows, {escape(f'{why} ({methods})')}"


def _why(row: Mapping[Any, Any]) -> str:
    """Why a row has no number, or not all."""
    if row["status"] == "ok":  # the kind found nothing to measure with
        return str(row["remarks"]) or "nothing was measured"
    return row["reason"] if row["reason"] == NOT_MEASURED else f"{row['status']}: {row['reason']}"


def _given(value: Any) -> bool:
    return not (value is None or value is pd.NA or value == "" or (isinstance(value, float) and math.isnan(value)))


def _cell(value: Any) -> str:
    if not _given(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _interval(row: Mapping[Any, Any], ends: tuple[str, str] | None) -> str:
    if ends is None or not all(_given(row[end]) for end in ends):
        return ""
    return " [" + ", ".join(f"{row[end]:.3g}" for end in ends) + "]"


def _text(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").rstrip().replace("```", "'''").split("\n")
