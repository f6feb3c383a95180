"""A small run to contribute, and what a forger would do with its files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokbench.comparison import carry_out, plan_comparison
from tokbench.config import load_config
from tokbench.results import PlannedRow, Results, load
from tokbench.results.directory import write_tables
from tokbench.results.store import FAILED, Records, Store

CHOSEN = {
    "models": ["digits_deit"],
    "baselines": ["none"],
    "methods": ["grid_pooling", "random_selection", "ats"],
    "keep": [0.5],
    "seeds": [0, 1],
    "limit": 60,
    "batch_size": [4],
    "accuracy_batch": 5,  # two shards, of 40 images and of 20
    "seconds": 0.02,
    "device": "cpu",
}

Record = dict[str, Any]


def measured(directory: Path, **changes: Any) -> Path:
    """Measure a few rows on a few digits."""
    config = load_config()
    carry_out(plan_comparison(config.suite("embedded", {**CHOSEN, **changes}), config), directory)
    return directory


def with_failure(directory: Path) -> Path:
    """Let the times of a row have failed, as they do where memory runs out."""
    row = row_of(load(directory), "grid_pooling")
    key = row.keys["latency"]
    remove(directory, ("latency", key))
    put(directory, FAILED, f"latency/{key}", {"reason": "RuntimeError: out of memory"})
    rebuild(directory)
    return directory


def row_of(results: Results, method: str) -> PlannedRow:
    return next(row for row in results.plan.rows if row.id.method == method)


def edit_json(file: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def put(directory: Path, kind: str, key: str, value: Record) -> None:
    """Write a record with its checksum, as tokbench does."""
    Store(directory).add(kind, key, value)


def edit_record(directory: Path, kind: str, method: str, change: Callable[[Record], object]) -> None:
    """Change the first record of a kind of a method, with its checksum."""
    results = load(directory)
    place = next(place for place in results.wanted(row_of(results, method)) if place[0] == kind)
    value = Records(directory).all()[place]
    change(value)
    put(directory, *place, value)


def edit_all(directory: Path, kind: str, change: Callable[[Record], object]) -> None:
    """Change all records of a kind, with their checksums."""
    records = {place: value for place, value in Records(directory).all().items() if place[0] == kind}
    for value in records.values():
        change(value)
    Store(directory).add_all(records)


def remove(directory: Path, *places: tuple[str, str]) -> None:
    """Remove records."""
    kept = {place: value for place, value in Records(directory).all().items() if place not in places}
    (directory / "records.jsonl").unlink()
    Store(directory).add_all(kept)


def rebuild(directory: Path) -> None:
    """Write the tables again, so that they are what the records give."""
    write_tables(load(directory))


def flipped(outcomes: str) -> str:
    """The outcomes with the first wrong answer made right, or else the first right one wrong."""
    at = next((place for place, mark in enumerate(outcomes) if mark != "0"), 0)
    return outcomes[:at] + ("0" if outcomes[at] != "0" else "1") + outcomes[at + 1 :]
