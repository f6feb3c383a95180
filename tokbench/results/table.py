"""The table of a comparison: one row per planned row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from tokbench.kinds import KINDS
from tokbench.results.columns import COLUMNS, TYPES
from tokbench.results.plan import PlannedRow
from tokbench.results.store import SKIPPED

if TYPE_CHECKING:
    from tokbench.results.directory import Results

NOT_MEASURED = "not measured yet"


def build_table(results: Results) -> pd.DataFrame:
    """The table of a directory, as far as it has been measured."""
    table = pd.DataFrame([_filled(row, results) for row in results.plan.rows]).reindex(columns=list(COLUMNS))
    for name, dtype in TYPES.items():
        if dtype == "string":
            table[name] = table[name].astype("string").fillna("")
    for kind in KINDS.values():
        table = kind.complete(table, results)
    return table.astype(TYPES)


def any_failed(table: pd.DataFrame) -> bool:
    """Whether a row failed; what has not been measured yet has not failed."""
    return bool((table["status"].eq("failed") & table["reason"].ne(NOT_MEASURED)).any())


def _filled(row: PlannedRow, results: Results) -> dict[str, Any]:
    """A planned row with everything that was measured of it."""
    plan = results.plan
    values = {
        **asdict(row.id),
        "device": plan.device,
        "compiled": row.id.mode == "compile",
        "attention_kernel": row.attention_kernel,
        "params_m": row.params_m,
    }
    plain = plan.plain_of(row)
    for kind in KINDS.values():
        values |= kind.fill(row, plain, results)
    status, reason = _status(row, results)
    remarks = [*row.remarks, *(remark for kind in KINDS.values() for remark in kind.remarks(row, results))]
    return {**values, "status": status, "reason": reason, "remarks": "; ".join(remarks)}


def _status(row: PlannedRow, results: Results) -> tuple[str, str]:
    """`ok`, `failed` or `skipped`, and why numbers are missing.

    A row is skipped only if nothing could be measured of it; of one that has other numbers, what is missing is named.
    """
    if row.skipped or row.failed:
        return ("skipped", row.skipped) if row.skipped else ("failed", row.failed)
    missing = {place: results.failure(*place) for place in results.missing(row)}
    failures = [failure["reason"] for failure in missing.values() if failure and not failure.get(SKIPPED)]
    skipped = {place: failure["reason"] for place, failure in missing.items() if failure and failure.get(SKIPPED)}
    if skipped and len(skipped) == len(results.wanted(row)):
        return "skipped", _joined(skipped.values())
    if not failures and len(skipped) < len(missing):
        return "failed", NOT_MEASURED
    left_out = [f"{kind} is skipped: {reason}" for (kind, _), reason in skipped.items()]
    return "failed" if failures else "ok", _joined([*failures, *left_out])


def _joined(reasons: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(reasons))
