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
from tokbench.report.markdown import escape, markdown_table
from tokbench.results.plan import PLAN

REPORT = "REPORT.md"
LINES = 80  # of a part's output

OF_EVERY_ROW = ("model", "method", "keep", "batch_size", "mode")
LEFT_OUT = ("tokens_per_block", "gmacs_saved", "gmacs_method", "other_load", "rounds")  # they are in table.csv


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
    cuda = f"CUDA {machine['cuda']}, {machine['cuda_devices']} device(s); " if machine["cuda"] else ""
    yield from (f"# {escape(machine['device_name'])}", "")
    yield f"Written on {datetime.now(UTC):%Y-%m-%d at %H:%M} UTC by `{command}`. The machine is described in"
    yield f"[environment.json](environment.json): {cuda}{machine['cpus']} CPUs, {escape(machine['platform'])}; {versions}."
    yield ""
    cells = [
        [f"[{name}](#{name})" if _has_section(out, one) else name, one.state, f"{one.seconds:.0f}", escape(one.reason)]
        for one in results
        for name in (one.name,)
    ]
    yield from markdown_table(("part", "state", "seconds", "why"), cells, {2})
    for one in results:
        if _has_section(out, one):
            yield from ("", f"## {one.name}", "", f"{escape(about[one.name])}. {one.state}, {one.ended}.", "")
            yield from ("```", one.command, "```", "")
            yield from _table(out / one.name)


def _has_section(out: Path, result: Result) -> bool:
    return result.state not in ("skipped", "not started") or (out / result.name / PLAN).is_file()


def _table(folder: Path) -> Iterator[str]:
    """The table of a comparison, finished or not; of another program, the end of its output."""
    if (folder / PLAN).is_file():
        try:
            yield from comparison_table(folder)
        except UserError as error:
            yield escape(str(error))
        return
    lines = [line for name in (OUTPUT, ERRORS) if (folder / name).is_file() for line in _text(folder / name)[-LINES:]]
    yield from ("```", *lines, "```")


def comparison_table(folder: Path) -> Iterator[str]:
    """The rows of a results directory that were measured, as Markdown: the columns of the kinds that were asked for."""
    results = load(folder)
    rows = results.table
    kinds = [KINDS[name] for name in results.plan.suite.only if name in KINDS]
    columns = [column for kind in kinds for column in kind.columns if column.name not in LEFT_OUT]
    ends = {end for column in columns for end in column.ends or ()}
    shown = [column for column in columns if column.name not in ends and rows[column.name].notna().any()]
    names = [name for name in OF_EVERY_ROW if rows[name].nunique() > 1 or name == "method"]
    constant = [f"{name} {rows[name].iloc[0]}" for name in OF_EVERY_ROW if name not in names]
    yield escape(", ".join([*constant, f"{rows['dtype'].iloc[0]}", f"attention {rows['attention_kernel'].iloc[0]}"]))
    yield ""
    cells = []
    for row in rows.to_dict("records"):
        if row["status"] == "ok" and not any(_given(row[column.name]) for column in shown):
            continue  # not measured yet
        first = [_called(row) if name == "method" else _cell(row[name]) for name in names]
        values = [_cell(row[column.name]) + _interval(row, column.ends) for column in shown]
        reason = "" if row["status"] == "ok" else f"{row['status']}: {row['reason']}"
        cells.append([escape(text) for text in (*first, *values, reason)])
    headings = [escape(name) for name in (*names, *(column.name for column in shown), "")]
    numbers = range(len(names), len(headings) - 1)
    yield from markdown_table(headings, cells, numbers)
    if len(cells) < len(rows):
        yield from ("", f"{len(cells)} of {len(rows)} rows; the others have not been measured yet.")


def _called(row: Mapping[Any, Any]) -> str:
    return f"{row['method']}({row['params']})" if row["params"] else str(row["method"])


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
