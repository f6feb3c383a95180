"""timm's published accuracies of its own weights, to hold the plain models against.

`timm_accuracy.csv` has, from the result tables of timm's repository, the rows of the models that tokbench is meant
for on the four image sets that it recognises.
"""

from __future__ import annotations

import importlib.resources

import pandas as pd
import timm

FILE_NAME = "timm_accuracy.csv"

# The image sets by the names of `tokbench.data.sets`: what timm's tables call them, and how many images they have.
_NAMES = {
    "imagenet": "imagenet-1k",
    "imagenet-v2": "imagenet-v2",
    "imagenet-a": "imagenet-a",
    "imagenet-r": "imagenet-r",
}
COMPLETE = {"imagenet": 50_000, "imagenet-v2": 10_000, "imagenet-a": 7_500, "imagenet-r": 30_000}


def published_top1(images: str, model: str) -> float | None:
    """The top-1 in percent that timm publishes for a model, None where its tables have none.

    Args:
        images: An image set's name, one of `COMPLETE`.
        model: A name of timm's, with the tag of its weights or without (timm's default one).
    """
    with importlib.resources.files("tokbench.published").joinpath(FILE_NAME).open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    found = table.loc[(table["dataset"] == _NAMES[images]) & (table["model"] == full_name(model)), "top1"]
    return None if found.empty else float(found.iloc[0])


def full_name(model: str) -> str:
    """A model's name with the tag of its weights; where none is written, timm's default one."""
    default = None if "." in model else timm.models.get_pretrained_cfg(model)
    return f"{model}.{default.tag}" if default is not None and default.tag else model
