"""The table of a comparison: one row per planned row."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from tokbench.kinds import KINDS
from tokbench.results.columns import COLUMNS, TYPES
from tokbench.results.plan import PlannedRow

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
    reasons = [row.failed] if row.failed else _failures(row, results)
    remarks = [*row.remarks, *(remark for kind in KINDS.values() for remark in kind.remarks(row, results))]
    return {
        **values,
        "status": "skipped" if row.skipped else "failed" if reasons else "ok",
        "reason": row.skipped or "; ".join(dict.fromkeys(reasons)),
        "remarks": "; ".join(remarks),
    }


def _failures(row: PlannedRow, results: Results) -> list[str]:
    """Why measurements are missing."""
    missing = results.missing(row)
    reasons = [failure["reason"] for kind, key in missing if (failure := results.failure(kind, key))]
    return reasons or ([NOT_MEASURED] if missing else [])
