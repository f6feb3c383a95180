"""timm's published accuracies of its own weights, to compare the plain models with.

`timm_accuracy.csv` has, from the result tables of timm's repository, the rows of the models that tokbench is meant
for on the four image sets that it recognises.
"""

from __future__ import annotations

import importlib.resources

import pandas as pd

from tokbench.results.plan import Plan
from tokbench.rows import plain_models

FILE_NAME = "timm_accuracy.csv"

# The image sets by the names of `tokbench.data.sets`: what timm's tables call them, and how many images they have.
_NAMES = {
    "imagenet": "imagenet-1k",
    "imagenet-v2": "imagenet-v2",
    "imagenet-a": "imagenet-a",
    "imagenet-r": "imagenet-r",
}
# Two runs of the same weights differ by less (resizing, rounding); a plain model further off has other weights.
SAME_WEIGHTS = 0.1

COMPLETE = {"imagenet": 50_000, "imagenet-v2": 10_000, "imagenet-a": 7_500, "imagenet-r": 30_000}


def load_accuracies() -> pd.DataFrame:
    """timm's accuracies in percent: a row for each model and image set, with `img_size` in pixels and `params_m`."""
    with importlib.resources.files("tokbench.published").joinpath(FILE_NAME).open(encoding="utf-8") as file:
        return pd.read_csv(file)


def published_top1(images: str, model: str) -> float | None:
    """The top-1 in percent that timm publishes for a model, None where its tables have none.

    Args:
        images: An image set's name, one of `COMPLETE`.
        model: A name of timm's with the tag of its weights.
    """
    table = load_accuracies()
    found = table.loc[(table["dataset"] == _NAMES[images]) & (table["model"] == model), "top1"]
    return None if found.empty else float(found.iloc[0])


def unlike_published(table: pd.DataFrame, plan: Plan) -> list[str]:
    """Warnings about plain models whose top-1 on a complete known image set differs from the one that timm publishes.

    Args:
        table: The rows of a comparison.
        plan: Its plan.

    Returns:
        One line for each model that is further off than 0.1 points; none where the set is unknown or not complete.
    """
    images = plan.images
    if images is None or images.count != COMPLETE.get(images.name):
        return []
    plain = table[plain_models(table) & table["images"].eq(images.count)]
    lines = []
    for model, top1 in plain.groupby("model", sort=False)["top1"].first().items():
        known = published_top1(images.name, plan.models.get(str(model), str(model)))
        if known is not None and abs(top1 - known) > SAME_WEIGHTS:
            lines.append(
                f"{model} has {top1:.2f} % on {images.name}, timm publishes {known:g} %: "
                "check that these are the right data and weights"
            )
    return lines
