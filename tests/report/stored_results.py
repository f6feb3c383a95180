"""Stored results, and ways to write changed copies of their plan and records."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokbench.names import PLAIN
from tokbench.registry import method_class
from tokbench.results.plan import PLAN, Plan, plan_json, read_plan
from tokbench.results.store import RECORDS
from tokbench.run.method_info import infos

RESULTS = Path(__file__).parents[2] / "results"
REFERENCE = Path(__file__).parents[1] / "stored/digits"
"""One model on the digits, measured by an earlier version: 34 rows, with times and memory."""

Json = dict[str, Any]


def write_plan(directory: Path, plan: Plan) -> None:
    (directory / PLAN).write_text(json.dumps(plan_json(plan)))


def plan_with_methods(directory: Path) -> Plan:
    """A directory's plan, with what the present version writes about methods; older versions left it out."""
    plan = read_plan(directory)
    names = {row.id.method for row in plan.rows if row.id.method != PLAIN}
    methods = infos(method_class(name) for name in sorted(names))
    return Plan(plan.suite, plan.device, plan.images, plan.rows, methods, {"digits_deit": "digits_deit"})


def read_records(directory: Path) -> list[Json]:
    """The records, in the order in which they were measured."""
    return [json.loads(line) for line in (directory / RECORDS).read_text().splitlines()]


def write_records(directory: Path, records: list[Json]) -> None:
    (directory / RECORDS).write_text("".join(f"{json.dumps(record)}\n" for record in records))


def keep_records(directory: Path, kept: Callable[[Json], bool]) -> None:
    """Remove all other records."""
    write_records(directory, [record for record in read_records(directory) if kept(record)])
