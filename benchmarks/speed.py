"""Shared by the programs about the accuracy pass: planning accuracies, and timing the pass."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress
from tokbench.run.accuracy import classify, shard_key, shards

from tokbench.config import load_config
from tokbench.registry import discover
from tokbench.results.store import Store
from tokbench.run.measure import DTYPES
from tokbench.run.plan import plan
from tokbench.run.prepare import Prepared, Row, prepare

Outcomes = dict[str, str]
"""The outcome for every image, one character each, by the key of the row."""


def accuracy_plan(
    data: str, weights: str, model: str, methods: Sequence[str], keeps: Sequence[float], **settings: Any
) -> Prepared:
    """Plan to measure the accuracy of methods in a model, and move the model to its device.

    Args:
        data: An image set.
        weights: The weights of the model.
        model: The name of a timm model.
        methods: Names of methods.
        keeps: Fractions of tokens to keep.
        settings: Other settings of the suite.
    """
    config = load_config()
    suite = config.suite(
        "imagenet",
        {
            "data": data,
            "weights": weights,
            "models": (model,),
            "methods": tuple(methods),
            "keep": tuple(keeps),
            "only": ("accuracy",),
            **settings,
        },
    )
    prepared = prepare(plan(suite, config, list(discover([])[0])), suite)
    for pretrained in prepared.models.values():
        pretrained.vit.to(prepared.device, DTYPES[suite.dtype])
    return prepared


def time_accuracy_pass(rows: Sequence[Row], prepared: Prepared) -> tuple[float, Outcomes]:
    """The seconds of an accuracy pass over rows, and their outcomes by key."""
    images = prepared.images
    assert images is not None
    spans = shards(len(images), prepared.suite.accuracy_batch)
    with tempfile.TemporaryDirectory() as folder, Progress(disable=True) as progress:
        store = Store(Path(folder))
        start = time.perf_counter()
        classify(rows, prepared, store, progress)
        seconds = time.perf_counter() - start
        keys = [row.keys["accuracy"] for row in rows]
        parts = {key: [store.get("accuracy", shard_key(key, span.start)) for span in spans] for key in keys}
    return seconds, {key: "".join(part["outcomes"] for part in of_row if part) for key, of_row in parts.items()}
