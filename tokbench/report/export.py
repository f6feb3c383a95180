"""Times in the JSON format of pytest-benchmark, for its `compare` command and dashboards that read it.

Each timed row becomes one benchmark. The commit is given as unknown, as results do not record it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest_benchmark
from pytest_benchmark.stats import Stats

from tokbench.errors import UserError
from tokbench.kinds import KINDS
from tokbench.kinds.latency import LATENCY
from tokbench.kinds.samples import LatencyRecord
from tokbench.results import Results
from tokbench.schedule_text import takes_keep
from tokbench.stats.times import MIN_ROUNDS

PARAMS = ("model", "method", "site", "schedule", "keep", "device", "dtype", "batch_size", "mode")
# What else is known of a row. Its time is in the statistics, and top-1 is averaged over seeds.
EXTRA = [
    "attention_kernel",
    "params_m",
    *(
        column.name
        for kind in KINDS.values()
        for column in kind.columns
        if not column.name.startswith(("latency_ms", "top1"))
    ),
]


def pytest_benchmark_json(results: Results) -> dict[str, Any]:
    """The latencies of a results directory in the format of a stored pytest-benchmark run.

    A benchmark's group consists of model, device, dtype, batch size, mode, schedule and keep; its name of method and
    parameters; its data are the seconds of each round's batch. The rows of a stochastic method's seeds share
    one measured time and become one benchmark; its `extra_info` has the mean of their accuracies.

    Args:
        results: The results directory.

    Returns:
        The whole document, ready for `json.dumps`.

    Raises:
        UserError: There are no times.
    """
    rows = results.table.assign(key=[row.keys.get(LATENCY.name, "") for row in results.plan.rows])
    benchmarks = []
    for key, same in rows.groupby("key", sort=False):
        record = results.read(LATENCY, str(key))
        if record is not None:
            benchmarks.append(_benchmark(same, record, results.plan.suite.seconds))
    if not benchmarks:
        raise UserError(
            f"no times in {results.directory}: measure them with "
            f"tokbench compare --only macs,latency --out {results.directory}"
        )
    environment = results.environment
    return {
        "machine_info": _machine(environment),
        "commit_info": {
            "id": "unversioned",
            "time": None,
            "author_time": None,
            "dirty": False,
            "project": "tokbench",
            "branch": "(unknown)",
        },
        "benchmarks": benchmarks,
        "datetime": environment["measured"],
        "version": pytest_benchmark.__version__,
    }


def _benchmark(same: pd.DataFrame, record: LatencyRecord, seconds: float) -> dict[str, Any]:
    """One benchmark, from the rows that share a time measurement."""
    row = {str(name): _plain(value) for name, value in same.iloc[0].items()}
    group = _group(row)
    name = f"{row['method']}[{row['params']}]" if row["params"] else row["method"]
    return {
        "group": group,
        "name": name,
        "fullname": f"{group}::{name}",
        "params": {key: row[key] for key in PARAMS},
        "param": row["params"],
        "extra_info": {
            **{key: row[key] for key in EXTRA},
            "top1": _plain(same["top1"].mean()),
            "session": record.session,
        },
        "options": {"min_rounds": MIN_ROUNDS, "max_time": seconds, "disable_gc": True},
        "stats": _statistics(record.other_s),
    }


def _group(row: dict[str, Any]) -> str:
    """The group that a row is compared in, without keeps that were solved for a budget: they differ between methods."""
    keep_was_given = not row["schedule"] or takes_keep(row["schedule"])
    parts = [
        row["model"],
        row["device"],
        row["dtype"],
        f"batch {row['batch_size']}",
        row["mode"],
        row["schedule"],
        f"keep {row['keep']:g}" if keep_was_given else "",
    ]
    return " ".join(filter(None, parts))


def _statistics(seconds: Sequence[float]) -> dict[str, Any]:
    stats: Any = Stats()  # type: ignore[no-untyped-call]
    for second in seconds:
        stats.update(second)
    return {**stats.as_dict(), "data": list(seconds), "iterations": 1}


def _machine(environment: dict[str, Any]) -> dict[str, Any]:
    """The machine that measured, with pytest-benchmark's names where they exist."""
    versions = environment["versions"]
    return {
        "processor": environment["device_name"],
        "python_version": versions["python"],
        "release": environment["platform"],
        "cpu": {"count": environment["cpus"]},
        "tokbench": environment,
    }


def _plain(value: Any) -> Any:
    """A value of the table for JSON; missing ones become None."""
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
