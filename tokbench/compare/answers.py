"""From what was said of each image to the table's columns, and to the table of all answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tokbench.compare.prepare import Prepared
from tokbench.compare.run import shard_key, shards
from tokbench.data.sets import ImageSet
from tokbench.measure.accuracy import UNREADABLE, WRONG
from tokbench.stats import paired_difference, pareto, wilson
from tokbench.store import Store


def outcomes(store: Store, key: str | None, spans: list[range]) -> str | None:
    """What was said of every image, a character each (see `measure.accuracy`); None where a part is missing."""
    parts = [store.get("accuracy", shard_key(key, span.start)) for span in spans] if key else []
    return None if not parts or None in parts else "".join(part["outcomes"] for part in parts if part)


def accuracy(said: str | None, plain: str | None) -> dict[str, Any]:
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


def front(table: pd.DataFrame) -> pd.Series:
    """Which rows no other row of their model beats in both compute and accuracy; seeds count by their mean."""
    best = pd.Series(False, index=table.index)
    same = ["model", "batch_size", "method", "params", "schedule", "keep", "site"]
    for _, block in table.groupby(["model", "batch_size"], sort=False):
        mean = block.groupby(same, sort=False, dropna=False)["top1"].transform("mean")
        best[block.index] = pareto(block["gmacs"].astype(float), mean.astype(float))
    return best


def correctness(prepared: Prepared, images: ImageSet, store: Store) -> pd.DataFrame:
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
