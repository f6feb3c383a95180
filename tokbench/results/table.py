"""The table: one row a cell, from a directory's plan and records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from tokbench.compare.accuracy import shard_key, shards
from tokbench.compare.prepare import Prepared, Row
from tokbench.compare.records import FAILED, NOISE
from tokbench.compare.redundancy import reconstruction, spectra
from tokbench.compare.sample_images import adaptive
from tokbench.errors import UserError
from tokbench.files import write_atomically
from tokbench.measure.environment import describe
from tokbench.names import OFF_THE_SHELF, PLAIN
from tokbench.results.answers import accuracy, correctness, front, outcomes, seeds_spread
from tokbench.results.store import ENVIRONMENT, PLAN, Records, Store
from tokbench.results.times import time_remarks, times

IMAGES = "images.parquet"

NOT_MEASURED = "not measured yet"

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
    "mode": "string",
    **dict.fromkeys(("gmacs_lo", "gmacs_hi"), "float64"),
    "rounds": "Int64",
    **dict.fromkeys(("latency_ms_p90", "latency_ms_p99", "noise_floor", "other_load"), "float64"),
    **dict.fromkeys(("gained", "lost"), "Int64"),
    **dict.fromkeys(("mcnemar_p", "top1_sd"), "float64"),
    "remarks": "string",
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
    if images is not None:
        write_images(store.directory, dict(zip(images.names, images.labels, strict=True)))


def write_images(directory: Path, labels: Mapping[str, int]) -> None:
    """Write down which images were shown, in what order, and the class of each: what the outcomes are of."""
    images = pd.DataFrame({"image": list(labels), "label": list(labels.values())})
    write_atomically(directory / IMAGES, images.to_parquet)


def read_images(directory: Path) -> dict[str, int] | None:
    """Each image's class, by its name and in the set's order; None where nothing was shown."""
    if not (directory / IMAGES).is_file():
        return None
    images = pd.read_parquet(directory / IMAGES)
    return dict(zip(images["image"], images["label"].tolist(), strict=True))


def read_plan(directory: Path) -> dict[str, Any]:
    """A directory's plan, as JSON has it.

    Raises:
        UserError: The directory holds none.
    """
    if not (directory / PLAN).is_file():
        raise UserError(
            f"no results in {directory}: it has no {PLAN}; make them with tokbench compare --out {directory}"
        )
    plan: dict[str, Any] = json.loads((directory / PLAN).read_text(encoding="utf-8"))
    return plan


def read_table(directory: Path) -> pd.DataFrame:
    """The table of a directory, as far as it has been measured.

    Raises:
        UserError: The directory holds no plan.
    """
    plan = read_plan(directory)
    store = Records(directory)
    plain = {_setting(row): row["keys"] for row in plan["rows"] if row["method"] == PLAIN and not row["params"]}
    rows = [_measured(row, plain[_setting(row)], plan, store) for row in plan["rows"]]
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    for name, kind in COLUMNS.items():
        if kind == "string":
            table[name] = table[name].astype("string").fillna("")
    spans = _spans(plan)
    table["top1_sd"] = seeds_spread(table)
    table["pareto"] = front(table, [outcomes(store, row["keys"].get("accuracy"), spans) for row in plan["rows"]])
    return table.astype(COLUMNS)


def any_failed(table: pd.DataFrame) -> bool:
    """Whether something went wrong; what has not been measured yet has not."""
    return bool((table["status"].eq("failed") & table["reason"].ne(NOT_MEASURED)).any())


def read_spectra(directory: Path) -> pd.DataFrame:
    """The spectra of a directory, as far as they have been measured: see `compare.redundancy.spectra`.

    Raises:
        UserError: The directory holds no plan.
    """
    return spectra(read_plan(directory), Records(directory))


def read_reconstruction(directory: Path) -> pd.DataFrame:
    """The reconstruction errors of a directory, as far as measured: see `compare.redundancy.reconstruction`.

    Raises:
        UserError: The directory holds no plan.
    """
    return reconstruction(read_plan(directory), Records(directory))


def write_results(store: Records) -> pd.DataFrame:
    """Write `table.parquet`, `table.csv` and `correctness.parquet`, and return the table.

    What was analysed is written to `spectra.csv` and `reconstruction.csv`.

    Args:
        store: The records of a directory that holds their plan.
    """
    table = read_table(store.directory)
    write_atomically(store.directory / "table.parquet", table.to_parquet)
    write_atomically(store.directory / "table.csv", lambda path: table.to_csv(path, index=False))
    labels = read_images(store.directory)
    if labels is not None:
        answers = correctness(read_plan(store.directory), labels, store)
        write_atomically(store.directory / "correctness.parquet", answers.to_parquet)
    for name, read in (("spectra.csv", read_spectra), ("reconstruction.csv", read_reconstruction)):
        analysed = read(store.directory)
        if not analysed.empty:
            write_atomically(store.directory / name, partial(analysed.to_csv, index=False))
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
        "regime": OFF_THE_SHELF,
        "site": variant.site,
        "schedule": variant.schedule,
        "keep": variant.keep,
        "seed": row.cell.seed,
        "batch_size": row.cell.batch_size,
        "mode": row.cell.mode,
        "attention_kernel": row.attention_kernel,
        "params_m": row.params_m,
        "adaptive": adaptive(variant),
        "skipped": variant.skipped,
        "failed": row.failed,
        "keys": row.keys,
    }


def _spans(plan: dict[str, Any]) -> list[range]:
    images = plan["images"]
    return shards(images["count"], plan["suite"]["accuracy_batch"]) if images else []


def _setting(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["batch_size"], row["mode"]


def _measured(row: dict[str, Any], plain: dict[str, str], plan: dict[str, Any], store: Records) -> dict[str, Any]:
    """A planned row with everything that was measured of it."""
    suite = plan["suite"]
    keys = row["keys"]
    filled = {key: row[key] for key in row if key in COLUMNS}
    filled |= {"device": plan["device"], "dtype": suite["dtype"], "compiled": row["mode"] == "compile"}
    filled |= _compute(store.get("macs", keys.get("macs", "")), store.get("macs", plain.get("macs", "")))
    timed = store.get("latency", keys.get("latency", ""))
    if timed is not None:
        filled |= times(timed, store.get(NOISE, timed["session"]), row["batch_size"])
        filled |= store.get("memory", keys.get("memory", "")) or {}
    spans = _spans(plan)
    filled |= accuracy(outcomes(store, keys.get("accuracy"), spans), outcomes(store, plain.get("accuracy"), spans))
    reasons = [row["failed"]] if row["failed"] else _failures(keys, spans, store)
    status = "skipped" if row["skipped"] else "failed" if reasons else "ok"
    remarks = time_remarks(timed, suite["precision"]) if timed else []
    if row["adaptive"] and not plan["images"]:
        remarks.append("its counts depend on the images, and it was shown noise: name images with --data")
    told = {"reason": row["skipped"] or "; ".join(dict.fromkeys(reasons)), "remarks": "; ".join(remarks)}
    return {**filled, "status": status, **told}


def _failures(keys: dict[str, str], spans: list[range], store: Records) -> list[str]:
    """Why measurements are missing."""
    wanted = [(kind, key) for kind, key in keys.items() if kind != "accuracy"]
    if "accuracy" in keys:
        wanted += [("accuracy", shard_key(keys["accuracy"], span.start)) for span in spans]
    missing = [(kind, key) for kind, key in wanted if store.get(kind, key) is None]
    told = [store.get(FAILED, f"{kind}/{key}") for kind, key in missing]
    return [failure["reason"] for failure in told if failure] or ([NOT_MEASURED] if missing else [])


def _compute(record: dict[str, Any] | None, plain: dict[str, Any] | None) -> dict[str, Any]:
    if record is None:
        return {}
    total = record["total"]
    return {
        "tokens_per_block": " ".join(map(str, record["tokens"])),
        "gmacs": total / 1e9,
        **{f"gmacs_{end}": record[f"total_{end}"] / 1e9 for end in ("lo", "hi") if f"total_{end}" in record},
        "gmacs_method": record["method"] / 1e9,
        "gmacs_saved": 100 * (1 - total / plain["total"]) if plain else None,
    }
