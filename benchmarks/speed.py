"""Shared by the programs about the accuracy pass: planning accuracies, and timing the pass."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokbench.comparison import plan_comparison
from tokbench.config import load_config
from tokbench.kinds.accuracy import ACCURACY
from tokbench.measure.precision import DTYPES
from tokbench.outcomes import shard_key
from tokbench.results.store import Records, Store
from tokbench.run.bench import open_bench
from tokbench.run.observer import Silent
from tokbench.run.prepare import Prepared, Row

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
    prepared = plan_comparison(suite, config).prepared
    for pretrained in prepared.models.values():
        pretrained.vit.to(prepared.device, DTYPES[suite.dtype])
    return prepared


def time_accuracy_pass(rows: Sequence[Row], prepared: Prepared) -> tuple[float, Outcomes]:
    """The seconds of an accuracy pass over rows, and their outcomes by key."""
    with tempfile.TemporaryDirectory() as folder:
        records = Store(Path(folder))
        bench = open_bench(prepared, records, Silent())
        wanted = {row.keys[ACCURACY.name]: row for row in rows}
        start = time.perf_counter()
        ACCURACY.measure(wanted, bench)
        seconds = time.perf_counter() - start
        return seconds, {key: outcomes_of(key, bench.shards, records) for key in wanted}


def outcomes_of(key: str, shards: Sequence[range], records: Records) -> str:
    """The outcome for every image of one row, `(missing)` for shards without a record."""
    found = [records.get(ACCURACY.name, shard_key(key, shard)) for shard in shards]
    return "".join(record["outcomes"] if record else "(missing)" for record in found)
