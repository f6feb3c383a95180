"""Compare two results directories row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from tokbench.check.finding import Finding, Outcome, Report
from tokbench.check.rules import Counts, judge_answers, judge_answers_exactly, judge_counts, judge_speedup
from tokbench.check.stored import Stored, read_stored
from tokbench.config import Check
from tokbench.errors import UserError
from tokbench.names import PLAIN
from tokbench.results.conditions import ANSWER_SETTINGS, TIME_SETTINGS, difference_text, differing
from tokbench.results.table import NOT_MEASURED
from tokbench.rows import RowId

MAX_UNREADABLE = 0.01  # the share of the images that may be missing on one side, as in a run
MAX_NAMED = 3  # rows that are named in a message


def compare_results(new: Path, old: Path, thresholds: Check, *, require_times: bool = False) -> Report:
    """Compare results with a baseline.

    Args:
        new: The results directory to check.
        old: The baseline.
        thresholds: The changes that are allowed, by column.
        require_times: Whether the check is invalid if times cannot be compared.
    """
    title = f"{new} against {old}"
    try:
        after, before = read_stored(new), read_stored(old)
    except UserError as error:
        return Report(title, findings=(Finding(Outcome.INVALID, "results", str(error)),))
    rows = tuple(row for row in before.table if row in after.table)
    answer_differences = differing(before.results, after.results, ANSWER_SETTINGS)
    time_differences = differing(before.results, after.results, TIME_SETTINGS)
    findings = [*_invalid_findings(before, after)]
    if require_times and (time_differences or not (before.ratios and after.ratios)):
        machines = f"the machines differ in {', '.join(time_differences)}"
        reason = machines if time_differences else "one side has no times"
        findings.append(Finding(Outcome.INVALID, "times", f"cannot be compared: {reason}"))
    for row in rows:
        findings += _row_findings(
            row, before, after, thresholds, exactly=not answer_differences, timed=not time_differences
        )
    notes = tuple(_notes(before, after, answer_differences, time_differences))
    # Rows that share a measurement have equal findings.
    return Report(title, rows, tuple(dict.fromkeys(findings)), notes)


def _invalid_findings(old: Stored, new: Stored) -> Iterator[Finding]:
    """Findings that make the comparison invalid."""
    missing = [row for row in old.table if row not in new.table]
    if missing:
        yield Finding(Outcome.INVALID, "plan", f"missing in {new.directory}: {_row_count(missing)}")
    left_out = [kind for kind in old.results.plan.suite.only if kind not in new.results.plan.suite.only]
    if left_out:
        yield Finding(Outcome.INVALID, "plan", f"{new.directory} was measured without {', '.join(left_out)}")
    for stored in (old, new):
        yield from unmeasured(stored)


def unmeasured(stored: Stored) -> Iterator[Finding]:
    """That rows of a directory are not measured yet, if there are any."""
    waiting = [row for row, record in stored.table.items() if NOT_MEASURED in record["reason"]]
    if waiting:
        rows = _row_count(waiting)
        note = f"not measured yet in {stored.directory}: {rows}; run the same tokbench compare command to resume"
        yield Finding(Outcome.INVALID, "plan", note)


def _row_findings(
    row: RowId, old: Stored, new: Stored, thresholds: Check, *, exactly: bool, timed: bool
) -> Iterator[Finding]:
    before, after = old.table[row], new.table[row]
    yield from _status_finding(row, before, after)
    if not (pd.isna(before["gmacs"]) or pd.isna(after["gmacs"])):
        counted = judge_counts(row, _counts(before), _counts(after), thresholds.gmacs)
        # The token counts of an adaptive method depend on the last bits, as the answers do.
        yield from counted if exactly or not _is_adaptive(row, new) else map(_as_ambiguous, counted)
    if row in old.answers and row in new.answers:
        yield from _answer_findings(row, old.answers[row], new.answers[row], thresholds, exactly=exactly)
    if timed and row in old.ratios and row in new.ratios and (row.method, row.params) != (PLAIN, ""):
        floors = sum(record["noise_floor"] for record in (before, after))
        floor = (floors + thresholds.speedup) / 100
        yield from judge_speedup(row, old.ratios[row], new.ratios[row], floor)


def _status_finding(row: RowId, before: Mapping[Any, Any], after: Mapping[Any, Any]) -> Iterator[Finding]:
    was, now = before["status"], after["status"]
    if was == now or NOT_MEASURED in before["reason"] + after["reason"]:
        return
    outcome = Outcome.REGRESSED if was == "ok" else Outcome.IMPROVED if now == "ok" else Outcome.MOVED
    yield Finding(outcome, "status", after["reason"] or before["reason"], row, was, now)


def _answer_findings(
    row: RowId, old: pd.Series, new: pd.Series, thresholds: Check, *, exactly: bool
) -> Iterator[Finding]:
    shared = old.index.intersection(new.index)
    unshared = len(old) + len(new) - 2 * len(shared)
    all_timings = row.without("batch_size", "mode")
    if unshared > MAX_UNREADABLE * max(len(old), len(new)):
        note = f"different images: only {len(shared):,} are in both"
        yield Finding(Outcome.INVALID, "images", note, old=len(old), new=len(new))
        return
    if unshared:
        note = f"compared on the {len(shared):,} images that are in both"
        yield Finding(Outcome.MOVED, "images", note, all_timings, len(old), len(new))
    before, after = (answers[shared].to_numpy(dtype=bool) for answers in (old, new))
    if exactly:
        yield from judge_answers_exactly(row, before, after)
    else:
        yield from judge_answers(row, before, after, thresholds.top1)


def _notes(old: Stored, new: Stored, answer_differences: list[str], time_differences: list[str]) -> Iterator[str]:
    added = [row for row in new.table if row not in old.table]
    if added:
        yield f"only in {new.directory}, not checked: {_row_count(added)}"
    if answer_differences and old.answers and new.answers:
        differences = difference_text(old.results, new.results, answer_differences)
        yield f"accuracy is compared by a paired test instead of exactly: {differences}"
    if time_differences and old.ratios and new.ratios:
        yield f"times are not compared: {difference_text(old.results, new.results, time_differences)}"


def _counts(record: Mapping[Any, Any]) -> Counts:
    return Counts(record["tokens_per_block"], record["gmacs"], record["gmacs_method"])


def _is_adaptive(row: RowId, stored: Stored) -> bool:
    record = stored.table[row]
    return bool(record["gmacs_lo"] < record["gmacs_hi"])


def _as_ambiguous(finding: Finding) -> Finding:
    return replace(finding, outcome=Outcome.AMBIGUOUS) if finding.outcome is Outcome.REGRESSED else finding


def _row_count(rows: list[RowId]) -> str:
    """The number and the names of rows: `2 rows (tome 0.7, tome 0.5)`."""
    named = ", ".join(" ".join(filter(None, (row.method, f"{row.keep or ''}"))) for row in rows[:MAX_NAMED])
    more = f" and {len(rows) - MAX_NAMED} more" if len(rows) > MAX_NAMED else ""
    return f"{len(rows)} {'row' if len(rows) == 1 else 'rows'} ({named}{more})"
