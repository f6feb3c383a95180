"""Two results directories held against each other, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from tokbench.check.finding import Finding, Outcome, Report, Row
from tokbench.check.rules import Counts, judge_answers, judge_answers_exactly, judge_counts, judge_speedup
from tokbench.check.stored import Results, read_results
from tokbench.config import Check
from tokbench.errors import UserError
from tokbench.names import PLAIN
from tokbench.results.table import NOT_MEASURED

# What answers depend on to the last bit, and what times depend on.
ANSWERING = ("device_name", "threads", "dtype", "accuracy_batch", "torch", "timm", "torchvision", "pillow", "numpy")
TIMING = ("device", "device_name", "cpus", "threads")

LOST = 0.01  # the share of images that one side may not have been able to read, as in a run
NAMED = 3  # rows named where many have the same fate


def compare_results(new: Path, old: Path, thresholds: Check, *, require_times: bool = False) -> Report:
    """Hold results against a baseline.

    Args:
        new: The results directory to judge.
        old: The baseline.
        thresholds: What is allowed, column by column.
        require_times: Whether times that cannot be compared make the check invalid.
    """
    title = f"{new} against {old}"
    try:
        after, before = read_results(new), read_results(old)
    except UserError as error:
        return Report(title, findings=(Finding(Outcome.INVALID, "results", str(error)),))
    rows = tuple(row for row in before.table if row in after.table)
    answering, timing = _differing(before, after, ANSWERING), _differing(before, after, TIMING)
    findings = [*_plans(before, after)]
    if require_times and (timing or not (before.ratios and after.ratios)):
        why = f"the machines differ in {', '.join(timing)}" if timing else "one side was not timed"
        findings.append(Finding(Outcome.INVALID, "times", f"they cannot be compared: {why}"))
    for row in rows:
        findings += _row(row, before, after, thresholds, exactly=not answering, timed=not timing)
    # Rows that share a measurement share what was found.
    return Report(title, rows, tuple(dict.fromkeys(findings)), tuple(_notes(before, after, answering, timing)))


def _plans(old: Results, new: Results) -> Iterator[Finding]:
    """What makes a comparison impossible."""
    missing = [row for row in old.table if row not in new.table]
    if missing:
        yield Finding(Outcome.INVALID, "plan", f"missing in {new.directory}: {_count(missing)}")
    left_out = [kind for kind in old.plan["suite"]["only"] if kind not in new.plan["suite"]["only"]]
    if left_out:
        yield Finding(Outcome.INVALID, "plan", f"{new.directory} was measured without {', '.join(left_out)}")
    for results in (old, new):
        undone = [row for row, record in results.table.items() if NOT_MEASURED in record["reason"]]
        if undone:
            note = f"not measured yet in {results.directory}: {_count(undone)}; run its tokbench compare again"
            yield Finding(Outcome.INVALID, "plan", note)


def _row(row: Row, old: Results, new: Results, thresholds: Check, *, exactly: bool, timed: bool) -> Iterator[Finding]:
    before, after = old.table[row], new.table[row]
    yield from _status(row, before, after)
    if not (pd.isna(before["gmacs"]) or pd.isna(after["gmacs"])):
        counted = judge_counts(row, _counts(before), _counts(after), thresholds.gmacs)
        # Which tokens an adaptive method keeps hangs on last bits, as answers do.
        yield from counted if exactly or not _adaptive(row, new) else map(_doubted, counted)
    if row in old.answers and row in new.answers:
        yield from _answers(row, old.answers[row], new.answers[row], thresholds, exactly=exactly)
    if timed and row in old.ratios and row in new.ratios and (row.method, row.params) != (PLAIN, ""):
        noise = sum(record["noise_floor"] for record in (before, after))
        floor = (noise + thresholds.speedup) / 100
        yield from judge_speedup(row, old.ratios[row], new.ratios[row], floor)


def _status(row: Row, before: Mapping[Any, Any], after: Mapping[Any, Any]) -> Iterator[Finding]:
    was, now = before["status"], after["status"]
    if was == now or NOT_MEASURED in before["reason"] + after["reason"]:
        return
    outcome = Outcome.REGRESSED if was == "ok" else Outcome.IMPROVED if now == "ok" else Outcome.MOVED
    yield Finding(outcome, "status", after["reason"] or before["reason"], row, was, now)


def _answers(row: Row, old: pd.Series, new: pd.Series, thresholds: Check, *, exactly: bool) -> Iterator[Finding]:
    shared = old.index.intersection(new.index)
    unshared = len(old) + len(new) - 2 * len(shared)
    about = replace(row, batch_size=None, mode="")
    if unshared > LOST * max(len(old), len(new)):
        note = f"the images differ: {len(shared):,} are in both"
        yield Finding(Outcome.INVALID, "images", note, old=len(old), new=len(new))
        return
    if unshared:
        note = f"compared on the {len(shared):,} that both could read"
        yield Finding(Outcome.MOVED, "images", note, about, len(old), len(new))
    before, after = (answers[shared].to_numpy(dtype=bool) for answers in (old, new))
    if exactly:
        yield from judge_answers_exactly(row, before, after)
    else:
        yield from judge_answers(row, before, after, thresholds.top1)


def _notes(old: Results, new: Results, answering: list[str], timing: list[str]) -> Iterator[str]:
    added = [row for row in new.table if row not in old.table]
    if added:
        yield f"only in {new.directory}, and not judged: {_count(added)}"
    if answering and old.answers and new.answers:
        yield f"answers are held by a paired test, not exactly: {_apart(old, new, answering)}"
    if timing and old.ratios and new.ratios:
        yield f"times are left out: {_apart(old, new, timing)}"


def _apart(old: Results, new: Results, names: list[str]) -> str:
    was, now = _settings(old), _settings(new)
    return ", ".join(f"{name} {was[name]} and {now[name]}" for name in names)


def _differing(old: Results, new: Results, names: tuple[str, ...]) -> list[str]:
    was, now = _settings(old), _settings(new)
    return [name for name in names if was[name] != now[name]]


def _settings(results: Results) -> dict[str, Any]:
    """Everything that a measurement hangs on, by name."""
    environment, suite = results.environment, results.plan["suite"]
    return {**environment["versions"], **environment, **{name: suite[name] for name in ("dtype", "accuracy_batch")}}


def _counts(record: Mapping[Any, Any]) -> Counts:
    return Counts(record["tokens_per_block"], record["gmacs"], record["gmacs_method"])


def _adaptive(row: Row, results: Results) -> bool:
    record = results.table[row]
    return bool(record["gmacs_lo"] < record["gmacs_hi"])


def _doubted(finding: Finding) -> Finding:
    return replace(finding, outcome=Outcome.AMBIGUOUS) if finding.outcome is Outcome.REGRESSED else finding


def _count(rows: list[Row]) -> str:
    """`2 rows (tome 0.7, tome 0.5)`."""
    named = ", ".join(" ".join(filter(None, (row.method, f"{row.keep or ''}"))) for row in rows[:NAMED])
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return f"{len(rows)} {'row' if len(rows) == 1 else 'rows'} ({named}{more})"
