"""What the programs about the accuracy pass share: a plan of accuracies, and the pass timed."""

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

Answers = dict[str, str]
"""What was said of every image, by a row's key."""


def accuracy_plan(
    data: str, weights: str, model: str, methods: Sequence[str], keeps: Sequence[float], **settings: Any
) -> Prepared:
    """The accuracies of methods in a model, the model on its device.

    Args:
        data: An image set.
        weights: The model's.
        model: A name that timm knows.
        methods: Names.
        keeps: Fractions.
        settings: Of the suite, besides.
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


def answer(rows: Sequence[Row], prepared: Prepared) -> tuple[float, Answers]:
    """Seconds of an accuracy pass over rows, and their outcomes by key."""
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
    return seconds, {key: "".join(part["outcomes"] for part in several if part) for key, several in parts.items()}
