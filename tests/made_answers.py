"""Results directories with made-up answers and counts of MACs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tokbench.config import load_config
from tokbench.names import PLAIN
from tokbench.results import ImagesInfo, MethodInfo, Plan, PlannedRow
from tokbench.results.plan import plan_json
from tokbench.rows import RowId

SETTINGS = {
    **{"model": "m", "params": "", "regime": "off-the-shelf", "site": "after_attention", "seed": None},
    **{"schedule": "stages(at=3)", "keep": 0.7, "dtype": "fp32", "batch_size": 8, "mode": "eager"},
}
PLAIN_SETTINGS = {"method": PLAIN, "site": "", "schedule": "", "keep": 1.0}


def row(method: str, outcomes: str | None, gmacs: float | None = 0.7, **settings: Any) -> dict[str, Any]:
    """A row with an outcome for each image; None for what was not measured."""
    own = PLAIN_SETTINGS if method == PLAIN else {"method": method}
    return {"id": RowId(**{**SETTINGS, **own, **settings}), "outcomes": outcomes, "gmacs": gmacs}


def outcomes(right: Any) -> str:
    """Outcomes of (images,) booleans."""
    return "".join("0" if one else "-" for one in np.asarray(right, dtype=bool))


def write(directory: Path, *rows: dict[str, Any], **methods: MethodInfo) -> Path:
    """Write a plan, its images and its records."""
    directory.mkdir()
    count = max(len(one["outcomes"] or "") for one in rows)
    planned, records = [], {}
    for one in rows:
        answers = repr(one["id"].without("batch_size", "mode"))
        planned.append(PlannedRow(one["id"], keys={"macs": answers, "accuracy": answers}))
        if one["outcomes"] is not None:
            records["accuracy", f"{answers}/0"] = {"outcomes": one["outcomes"]}
        if one["gmacs"] is not None:
            records["macs", answers] = {"total": round(one["gmacs"] * 1e9), "method": 0, "tokens": [1]}
    suite = load_config().suite("embedded", {"accuracy_batch": max(1000, count)})  # one shard
    plan = Plan(suite, "cpu", ImagesInfo("made", count), tuple(planned), methods)
    (directory / "plan.json").write_text(json.dumps(plan_json(plan)))
    lines = [json.dumps({"kind": kind, "key": key, "value": value}) for (kind, key), value in records.items()]
    (directory / "records.jsonl").write_text("".join(f"{line}\n" for line in lines))
    images = pd.DataFrame({"image": [f"{n}.png" for n in range(count)], "label": [0] * count})
    images.to_parquet(directory / "images.parquet")
    return directory
