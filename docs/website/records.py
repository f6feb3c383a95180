"""The record of each row: everything that was measured of it, with the command that measures it again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from tokbench.kinds import KINDS
from tokbench.names import FINE_TUNED
from tokbench.report.html.rerun import RerunCommands, rerun_commands
from tokbench.results import Plan, PlannedRow, Results
from website.source import Source

AGAIN = Path("results/again")
"""The directory that the commands write to."""

_ARRAY = re.compile(r"\[\n\s*([^\[\]{}]*?)\n\s*\]")  # of numbers or texts; a text holds no line break in JSON


def records(source: Source, run: Results) -> Iterator[str]:
    """JSON for each row of a run, in the table's order: its cells, its command, its environment, its measurements."""
    for row, cells in zip(run.plan.rows, run.table.to_dict("records"), strict=True):
        rerun = row_commands(run.plan, row)
        content = {
            "run": source.name(run),
            "row": {str(name): _plain(value) for name, value in cells.items() if not _missing(value)},
            "command": rerun.compare,
            **({"again.toml": rerun.suite} if rerun.suite else {}),
            "environment": run.environment,
            "measurements": _measurements(run, row),
        }
        yield _ARRAY.sub(lambda found: f"[{' '.join(found[1].split())}]", json.dumps(content, indent=1)) + "\n"


def row_commands(plan: Plan, row: PlannedRow) -> RerunCommands:
    """The command that measures one row again, with the plain model that it is compared with."""
    one = row.id
    changes: dict[str, Any] = {
        "models": (one.model,),
        "methods": (f"{one.method}({one.params})" if one.params else one.method,),
        "baselines": ("none",),
        "mode": (one.mode,),
    }
    if one.schedule:
        changes["schedule"] = (one.schedule,)
    for name in ("keep", "batch_size"):
        if getattr(one, name) is not None:
            changes[name] = (getattr(one, name),)
    if one.seed is not None:
        changes["seeds"] = (one.seed,)
    if one.regime != FINE_TUNED:
        changes["checkpoint"] = None
    narrowed = replace(plan, suite=plan.suite.model_copy(update=changes), rows=(row,))
    return rerun_commands(narrowed, AGAIN)


def _measurements(run: Results, row: PlannedRow) -> dict[str, list[Any]]:
    """The records of a row by kind, in the order of the images where there is one for each part of them."""
    found: dict[str, list[Any]] = {}
    for name, key in run.wanted(row):
        kind = KINDS[name]
        record = run.read(kind, key)
        if record is not None:
            found.setdefault(name, []).append(kind.adapter.dump_python(record, mode="json"))
    return found


def _missing(value: Any) -> bool:
    return bool(pd.isna(value)) or value == ""


def _plain(value: Any) -> Any:
    """A cell as JSON has it."""
    return value.item() if hasattr(value, "item") else value
