"""Check that several results directories agree where they must: in exact values with the same conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from tokbench.check.finding import Finding, Outcome, Report
from tokbench.check.gate import unmeasured
from tokbench.check.stored import read_stored
from tokbench.errors import UserError
from tokbench.results.difference import difference_note
from tokbench.results.disagreements import common_rows, rows_that_must_agree
from tokbench.results.several import Combined, combine
from tokbench.results.store import RECORDS
from tokbench.rows import RowId

SIDES = ("other run", "run")


def compare_runs(directories: Sequence[Path]) -> Report:
    """Compare results that were measured apart.

    Exact values with the same conditions (weights, data, versions, code) must agree. Where conditions differ, so may
    the values: the difference is shown and fails nothing. Times are not compared.

    Args:
        directories: At least two results directories.

    Raises:
        UserError: A directory is given twice.
    """
    title = " and ".join(map(str, directories))
    stored = []
    findings = []
    for directory in directories:
        try:
            stored.append(read_stored(directory))
        except UserError as error:
            findings.append(Finding(Outcome.INVALID, "results", str(error)))
    combined = combine([one.results for one in stored])
    for one in stored:
        findings += [*_damage(one.directory, one.results.damaged_lines), *unmeasured(one)]
    rows, exact = tuple(common_rows(combined.runs)), rows_that_must_agree(combined.runs)
    if not rows:
        findings.append(Finding(Outcome.INVALID, "plan", "no row is in more than one of them: nothing can be compared"))
    findings += _findings(combined)
    notes = (
        f"{len(rows)} rows are in more than one run; exact values of {len(exact)} of them have the same conditions and "
        "must agree",
        "times are not compared",
    )
    return Report(title, rows, tuple(findings), notes, SIDES)


def _damage(directory: Path, lines: int) -> Iterator[Finding]:
    if lines:
        counted = "1 line does" if lines == 1 else f"{lines} lines do"
        note = (
            f"{directory / RECORDS}: {counted} not match the checksum: changed by hand or cut off, counted as missing"
        )
        yield Finding(Outcome.INVALID, "records", note)


def _findings(combined: Combined) -> Iterator[Finding]:
    pairs = ((Outcome.DISAGREES, combined.disagreements), (Outcome.MOVED, combined.differences))
    for outcome, frame in pairs:
        for line in frame.to_dict("records"):
            values = (None if pd.isna(line[name]) else line[name] for name in ("other_value", "value"))
            yield Finding(outcome, line["column"], difference_note(line), RowId.of(line), *values)
