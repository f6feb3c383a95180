"""From what was said of each image to the table's columns, and to the table of all answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tokbench.compare.accuracy import shard_key, shards
from tokbench.measure.accuracy import UNREADABLE, WRONG
from tokbench.names import PLAIN
from tokbench.published.claims import SAME_WEIGHTS
from tokbench.published.timm_accuracy import COMPLETE, published_top1
from tokbench.results.store import Records
from tokbench.stats.proportions import mcnemar, surely_better, tango, wilson
from tokbench.stats.times import pareto_front

RIGHT = "0"

# The rows that share these have one front; those that share a setting too are the seeds of one method.
FRONT = ["model", "batch_size", "mode"]
SETTING = [*FRONT, "method", "params", "regime", "schedule", "keep", "site"]

# What names an answer to all images.
ANSWERED = ("model", "method", "params", "site", "schedule", "keep", "seed")


def outcomes(store: Records, key: str | None, spans: list[range]) -> str | None:
    """What was said of every image, a character each (see `measure.accuracy`); None where a part is missing."""
    parts = [store.get("accuracy", shard_key(key, span.start)) for span in spans] if key else []
    return None if not parts or None in parts else "".join(part["outcomes"] for part in parts if part)


def accuracy(said: str | None, plain: str | None) -> dict[str, Any]:
    """The columns of one row: its accuracies, and how they differ from the plain model's on the same images.

    Args:
        said: The row's outcomes.
        plain: The plain model's.

    Returns:
        Percent and points, by column; images that could not be read count nowhere.
    """
    marks = _marks(said or "")
    read = marks != UNREADABLE
    if not read.any():
        return {}
    right, images = int(np.sum(marks == RIGHT)), int(np.sum(read))
    top1 = wilson(right, images)
    filled: dict[str, Any] = {
        "top1": 100 * top1.estimate,
        "top5": 100 * float(np.mean(marks[read] != WRONG)),
        "images": images,
        "top1_lo": 100 * top1.lo,
        "top1_hi": 100 * top1.hi,
    }
    if plain is None:
        return filled
    before = _marks(plain)
    both = read & (before != UNREADABLE)
    if both.any():
        flips = mcnemar(before[both] == RIGHT, marks[both] == RIGHT)
        change = tango(flips.gained, flips.lost, int(np.sum(both)))
        filled |= {"delta_top1": 100 * change.estimate, "delta_lo": 100 * change.lo, "delta_hi": 100 * change.hi}
        filled |= {"gained": flips.gained, "lost": flips.lost, "mcnemar_p": flips.p}
    return filled


def seeds_spread(table: pd.DataFrame) -> pd.Series:
    """The standard deviation of top-1 over the seeds of a setting, in points, on each of their rows.

    It is the sample's (divided by one less than the seeds), and missing where a setting has one seed.
    """
    return table.groupby(SETTING, sort=False, dropna=False)["top1"].transform("std")


def front(table: pd.DataFrame, said: Sequence[str | None]) -> pd.Series:
    """Which rows no other row of their model surely beats: none costs no more and is better in top-1.

    Better is what the paired 95 % interval of the difference in top-1 (Tango's) shows to be so, being above zero. Of
    a stochastic method, each seed must be better, and than each seed of the other. A row without compute or without
    accuracy is not marked and beats none.

    Args:
        table: The rows of a comparison.
        said: Each row's outcomes, None where they are not all there.

    Returns:
        Booleans, on the table's index; the seeds of a setting have one mark.
    """
    best = pd.Series(False, index=table.index)
    outcome = pd.Series(list(said), index=table.index, dtype=object)
    answered = table.assign(outcome=outcome).dropna(subset=["gmacs", "outcome"])
    for _, block in answered.groupby(FRONT, sort=False, dropna=False):
        settings = block.groupby(SETTING, sort=False, dropna=False)
        member = settings.ngroup().to_numpy()
        better = _better(np.stack([_marks(text) for text in block["outcome"]]))
        # A setting is better where it counts no pair of seeds that is not.
        belongs = (np.arange(settings.ngroups)[:, None] == member).astype(float)
        surely = belongs @ ~better @ belongs.T == 0
        best[block.index] = pareto_front(settings["gmacs"].mean(), surely)[member]
    return best


def unlike_published(table: pd.DataFrame, plan: Mapping[str, Any]) -> list[str]:
    """What is odd about the plain models: their top-1 on a complete known set is not the one that timm publishes.

    Args:
        table: The rows of a comparison.
        plan: The comparison's plan, of which `images` counts.

    Returns:
        One line for each model that is further off than 0.1 points; none where the set is unknown or not complete.
    """
    images = plan["images"]
    if images is None or images["count"] != COMPLETE.get(images["name"]):
        return []
    plain = table[(table["method"] == PLAIN) & (table["images"] == images["count"])]
    lines = []
    for model, top1 in plain.groupby("model", sort=False)["top1"].first().items():
        known = published_top1(images["name"], str(model))
        if known is not None and abs(top1 - known) > SAME_WEIGHTS:
            lines.append(
                f"{model} has {top1:.2f} % on {images['name']} where timm's table has {known:g} %: "
                "the data or the weights are not what they seem"
            )
    return lines


def correctness(plan: Mapping[str, Any], labels: Mapping[str, int], store: Records) -> pd.DataFrame:
    """Long: one line for each image and each answer that was measured.

    Args:
        plan: The comparison's plan.
        labels: Each image's class, by its name and in the set's order.
        store: The comparison's records.
    """
    spans = shards(len(labels), plan["suite"]["accuracy_batch"])
    parts = []
    for row in {row["keys"]["accuracy"]: row for row in plan["rows"] if "accuracy" in row["keys"]}.values():
        said = outcomes(store, row["keys"]["accuracy"], spans)
        if said is None:
            continue
        marks = _marks(said)
        part = pd.DataFrame({"image": list(labels), "label": list(labels.values())})
        part = part.assign(top1=marks == RIGHT, top5=marks != WRONG, **{name: row[name] for name in ANSWERED})
        parts.append(part[marks != UNREADABLE])
    columns = [*ANSWERED, "image", "label", "top1", "top5"]
    joined = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    texts = dict.fromkeys(("model", "method", "params", "site", "schedule", "image"), "category")
    return joined[columns].astype({**texts, "keep": "float64", "seed": "Int64"})


def _marks(said: str) -> NDArray[np.str_]:
    """(images,) one character each."""
    return np.array([said]).view("U1") if said else np.array([], dtype="U1")


def _better(marks: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(rows, rows): is the row surely better than the column, from (rows, images) outcomes?"""
    right = (marks == RIGHT).astype(np.float32)  # counts of images are exact in it
    wrong = ((marks != RIGHT) & (marks != UNREADABLE)).astype(np.float32)
    gained = right @ wrong.T
    return surely_better(gained, gained.T)
