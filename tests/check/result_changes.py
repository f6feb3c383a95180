"""Ways to change a results directory: other counts, other answers, other times."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tokbench.results.directory import IMAGES as IMAGES_FILE
from tokbench.results.plan import PLAN
from tokbench.results.store import RECORDS

IMAGES = 100  # of the comparison that is changed
ROUNDS = 40

Json = dict[str, Any]


def times(seed: int, speedup: float, spread: float = 0.002) -> Json:
    """A latency record whose log-ratios have the log of the speedup as median."""
    noise = np.random.default_rng(seed).normal(0, spread, ROUNDS)
    other = 0.01 * np.exp(np.median(noise) - noise) / speedup
    return {
        "base_s": [0.01] * ROUNDS,
        "other_s": other.tolist(),
        "half_width": 0.001,
        "other_load": 0.0,
        "session": "session",
        "gpu": [],
    }


def edit_json(path: Path, change: Callable[[Json], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_plan(directory: Path, change: Callable[[Json], object]) -> None:
    edit_json(directory / PLAN, change)


def edit_records(directory: Path, kind: str, change: Callable[[str, Json], object]) -> None:
    """Apply a function to the keys and values of all records of a kind."""
    lines = _lines(directory)
    for line in lines:
        if line["kind"] == kind:
            change(line["key"], line["value"])
    (directory / RECORDS).write_text("".join(json.dumps(line) + "\n" for line in lines))


def drop_records(directory: Path, dropped: Callable[[Json], bool]) -> None:
    lines = _lines(directory)
    (directory / RECORDS).write_text("".join(json.dumps(line) + "\n" for line in lines if not dropped(line)))


def _lines(directory: Path) -> list[Json]:
    """The records without checksums: with the old one, a changed line would count as missing."""
    lines = [json.loads(line) for line in (directory / RECORDS).read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "sum"} for line in lines]


def key_of(directory: Path, kind: str, method: str, seed: int | None = None) -> str:
    rows = json.loads((directory / PLAN).read_text())["rows"]
    return next(str(row["keys"][kind]) for row in rows if (row["method"], row["seed"]) == (method, seed))


def set_macs(directory: Path, method: str, **values: Any) -> None:
    """Set the token counts, or add MACs: `tokens`, `more`."""
    wanted = key_of(directory, "macs", method, 0 if method == "random_selection" else None)

    def change(name: str, value: Json) -> None:
        if name == wanted:
            value["tokens"] = values.get("tokens", value["tokens"])
            value["total"] += values.get("more", 0)

    edit_records(directory, "macs", change)


def flip(directory: Path, method: str, *, lose: int = 0, gain: int = 0, seed: int | None = None) -> None:
    """Make right answers wrong and wrong ones right."""
    wanted = key_of(directory, "accuracy", method, seed)

    def change(name: str, value: Json) -> None:
        if name.partition("/")[0] == wanted:
            answers = list(value["outcomes"])
            right = [n for n, mark in enumerate(answers) if mark == "0"][:lose]
            wrong = [n for n, mark in enumerate(answers) if mark != "0"][:gain]
            assert (len(right), len(wrong)) == (lose, gain)
            for n in (*right, *wrong):
                answers[n] = "1" if answers[n] == "0" else "0"
            value["outcomes"] = "".join(answers)

    edit_records(directory, "accuracy", change)


def set_speedup(directory: Path, speedup: float, spread: float = 0.002) -> None:
    """Give grid_pooling new random times."""

    def change(name: str, value: Json) -> None:
        if name == "time of grid_pooling":
            value.update(times(7, speedup, spread))

    edit_records(directory, "latency", change)


def edit_images(directory: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change the list of the images and their classes."""
    path = directory / IMAGES_FILE
    change(pd.read_parquet(path)).to_parquet(path)


def outcomes_of(report: Json, column: str) -> list[tuple[str, str]]:
    """The outcomes of a column's findings, each with its method."""
    own = [finding for finding in report["findings"] if finding["column"] == column]
    return [((finding["row"] or {}).get("method", ""), finding["outcome"]) for finding in own]
