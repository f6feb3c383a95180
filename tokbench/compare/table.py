"""The table: one row a cell, from a directory's plan and records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tokbench.compare.plan import PLAIN
from tokbench.compare.prepare import Prepared, Row
from tokbench.compare.run import FAILED, shard_key, shards
from tokbench.data.sets import ImageSet
from tokbench.errors import UserError
from tokbench.measure.accuracy import UNREADABLE, WRONG
from tokbench.measure.environment import describe
from tokbench.stats import compare_times, floor_of, median_interval, paired_difference, pareto, wilson
from tokbench.store import ENVIRONMENT, PLAN, Store, write_atomically

COLUMNS = {
    **dict.fromkeys(("model", "method", "params", "regime", "site", "schedule"), "string"),
    "keep": "float64",
    "seed": "Int64",
    **dict.fromkeys(("device", "dtype"), "string"),
    "batch_size": "int64",
    "compiled": "bool",
    **dict.fromkeys(("attention_kernel", "status", "reason", "tokens_per_block"), "string"),
    **dict.fromkeys(("params_m", "gmacs", "gmacs_method", "gmacs_saved"), "float64"),
    **dict.fromkeys(("latency_ms", "latency_ms_lo", "latency_ms_hi", "images_per_s"), "float64"),
    **dict.fromkeys(("speedup", "speedup_lo", "speedup_hi"), "float64"),
    "verdict": "string",
    **dict.fromkeys(("peak_mib", "top1", "top5"), "float64"),
    "images": "Int64",
    **dict.fromkeys(("top1_lo", "top1_hi", "delta_top1", "delta_lo", "delta_hi"), "float64"),
    "pareto": "bool",
}
"""Every column in order, with its type. Accuracies are percent, differences points, `latency_ms` is a batch's."""


def write_plan(prepared: Prepared, store: Store) -> None:
    """Write down what will be measured, and on what, before anything is."""
    images = prepared.images
    store.write_json(
        PLAN,
        {
            "suite": prepared.suite.model_dump(mode="json"),
            "device": prepared.device.type,
            "images": None if images is None else {"name": images.name, "count": len(images)},
            "rows": planned_rows(prepared),
        },
    )
    store.write_json(ENVIRONMENT, describe(prepared.device))


def read_table(directory: Path) -> pd.DataFrame:
    """The table of a directory, as far as it has been measured.

    Raises:
        UserError: The directory holds no plan.
    """
    if not (directory / PLAN).is_file():
        raise UserError(
            f"no results in {directory}: it has no {PLAN}; make them with tokbench compare --out {directory}"
        )
    plan = json.loads((directory / PLAN).read_text(encoding="utf-8"))
    store = Store(directory)
    plain = {_setting(row): row["keys"] for row in plan["rows"] if row["method"] == PLAIN}
    rows = [_measured(row, plain[_setting(row)], plan, store) for row in plan["rows"]]
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    for name, kind in COLUMNS.items():
        if kind == "string":
            table[name] = table[name].astype("string").fillna("")
    table["pareto"] = _pareto(table)
    return table.astype(COLUMNS)


def write_results(prepared: Prepared, store: Store) -> pd.DataFrame:
    """Write `table.parquet`, `table.csv` and `correctness.parquet`, and return the table."""
    table = read_table(store.directory)
    write_atomically(store.directory / "table.parquet", table.to_parquet)
    write_atomically(store.directory / "table.csv", lambda path: table.to_csv(path, index=False))
    if prepared.images is not None:
        correctness = _correctness(prepared, prepared.images, store)
        write_atomically(store.directory / "correctness.parquet", correctness.to_parquet)
    return table


def planned_rows(prepared: Prepared) -> list[dict[str, Any]]:
    """The plan's rows as JSON takes them."""
    return [_planned(row) for row in prepared.rows]


def _planned(row: Row) -> dict[str, Any]:
    variant = row.cell.variant
    return {
        "model": row.cell.model,
        "method": variant.method,
        "params": variant.params_text,
        "regime": "off-the-shelf",
        "site": variant.site,
        "schedule": variant.schedule,
        "keep": variant.keep,
        "seed": row.cell.seed,
        "batch_size": row.cell.batch_size,
        "attention_kernel": row.attention_kernel,
        "params_m": row.params_m,
        "skipped": variant.skipped,
        "failed": row.failed,
        "keys": row.keys,
    }


def _setting(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["batch_size"]


def _measured(row: dict[str, Any], plain: dict[str, str], plan: dict[str, Any], store: Store) -> dict[str, Any]:
    """A planned row with everything that was measured of it."""
    suite = plan["suite"]
    keys = row["keys"]
    filled = {key: row[key] for key in row if key in COLUMNS}
    filled |= {"device": plan["device"], "dtype": suite["dtype"], "compiled": False}
    filled |= _compute(store.get("macs", keys.get("macs", "")), store.get("macs", plain.get("macs", "")))
    filled |= _speed(
        store.get("latency", keys.get("latency", "")), store.get("latency", plain.get("latency", "")), row["batch_size"]
    )
    spans = shards(plan["images"]["count"], suite["accuracy_batch"]) if plan["images"] else []
    filled |= _accuracy(outcomes(store, keys.get("accuracy"), spans), outcomes(store, plain.get("accuracy"), spans))
    reasons = [row["failed"]] if row["failed"] else _failures(keys, spans, store)
    status = "skipped" if row["skipped"] else "failed" if reasons else "ok"
    return {**filled, "status": status, "reason": row["skipped"] or "; ".join(dict.fromkeys(reasons))}


def _failures(keys: dict[str, str], spans: list[range], store: Store) -> list[str]:
    """Why measurements are missing."""
    wanted = [(kind, key) for kind, key in keys.items() if kind != "accuracy"]
    if "accuracy" in keys:
        wanted += [("accuracy", shard_key(keys["accuracy"], span.start)) for span in spans]
    missing = [(kind, key) for kind, key in wanted if store.get(kind, key) is None]
    told = [store.get(FAILED, f"{kind}/{key}") for kind, key in missing]
    return [failure["reason"] for failure in told if failure] or (["not measured yet"] if missing else [])


def _compute(record: dict[str, Any] | None, plain: dict[str, Any] | None) -> dict[str, Any]:
    if record is None:
        return {}
    total = record["total"]
    return {
        "tokens_per_block": " ".join(map(str, record["ledger"]["leaving"])),
        "gmacs": total / 1e9,
        "gmacs_method": record["method"] / 1e9,
        "gmacs_saved": 100 * (1 - total / plain["total"]) if plain else None,
    }


def _speed(record: dict[str, Any] | None, plain: dict[str, Any] | None, batch_size: int) -> dict[str, Any]:
    if record is None:
        return {}
    latency = median_interval(record["method_s"])
    # The plain row is the model against itself: what it differs by is this session's noise.
    floor = floor_of([compare_times(plain["plain_s"], plain["method_s"])]) if plain else 0.0
    against = compare_times(record["plain_s"], record["method_s"], floor)
    return {
        "latency_ms": 1e3 * latency.estimate,
        "latency_ms_lo": 1e3 * latency.lo,
        "latency_ms_hi": 1e3 * latency.hi,
        "images_per_s": batch_size / latency.estimate,
        "speedup": against.speedup.estimate,
        "speedup_lo": against.speedup.lo,
        "speedup_hi": against.speedup.hi,
        "verdict": str(against.verdict),
        "peak_mib": record["peak_mib"],
    }


def outcomes(store: Store, key: str | None, spans: list[range]) -> str | None:
    """What was said of every image, a character each (see `measure.accuracy`); None where a part is missing."""
    parts = [store.get("accuracy", shard_key(key, span.start)) for span in spans] if key else []
    return None if not parts or None in parts else "".join(part["outcomes"] for part in parts if part)


def _accuracy(said: str | None, plain: str | None) -> dict[str, Any]:
    read = [] if said is None else [outcome for outcome in said if outcome != UNREADABLE]
    if not read or said is None:
        return {}
    right = read.count("0")
    top1 = wilson(right, len(read))
    filled: dict[str, Any] = {
        "top1": 100 * top1.estimate,
        "top5": 100 * (1 - read.count(WRONG) / len(read)),
        "images": len(read),
        "top1_lo": 100 * top1.lo,
        "top1_hi": 100 * top1.hi,
    }
    if plain is not None:
        pairs = [(a == "0", b == "0") for a, b in zip(plain, said, strict=True) if UNREADABLE not in (a, b)]
        before, after = zip(*pairs, strict=True)
        change = paired_difference(before, after)
        filled |= {"delta_top1": 100 * change.estimate, "delta_lo": 100 * change.lo, "delta_hi": 100 * change.hi}
    return filled


def _pareto(table: pd.DataFrame) -> pd.Series:
    """Which rows no other row of their model beats in both compute and accuracy; seeds count by their mean."""
    best = pd.Series(False, index=table.index)
    same = ["model", "batch_size", "method", "params", "schedule", "keep", "site"]
    for _, block in table.groupby(["model", "batch_size"], sort=False):
        mean = block.groupby(same, sort=False, dropna=False)["top1"].transform("mean")
        best[block.index] = pareto(block["gmacs"].astype(float), mean.astype(float))
    return best


def _correctness(prepared: Prepared, images: ImageSet, store: Store) -> pd.DataFrame:
    """Long: one line for each image and each answer that was measured."""
    spans = shards(len(images), prepared.suite.accuracy_batch)
    parts = []
    for row in {row.keys["accuracy"]: row for row in prepared.rows if "accuracy" in row.keys}.values():
        said = outcomes(store, row.keys["accuracy"], spans)
        if said is None:
            continue
        marks = np.array(list(said))
        variant = row.cell.variant
        named = {
            "model": row.cell.model,
            "method": variant.method,
            "params": variant.params_text,
            "site": variant.site,
            "schedule": variant.schedule,
            "keep": variant.keep,
            "seed": row.cell.seed,
        }
        part = pd.DataFrame(
            {"image": images.names, "label": images.labels, "top1": marks == "0", "top5": marks != WRONG}
        )
        parts.append(part.assign(**named)[marks != UNREADABLE])
    columns = ["model", "method", "params", "site", "schedule", "keep", "seed", "image", "label", "top1", "top5"]
    joined = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    texts = dict.fromkeys(("model", "method", "params", "site", "schedule", "image"), "category")
    return joined[columns].astype({**texts, "keep": "float64", "seed": "Int64"})
