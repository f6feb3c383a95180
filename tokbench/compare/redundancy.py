"""The redundancy part of a run, which `--analyse` asks for, and what it measured as tables.

The plain model's row has the spectra of its blocks, a method's row its reconstruction errors. Neither depends on how
many images are timed at once, so rows of several batch sizes and modes share what was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pandas as pd
from rich.progress import Progress

from tokbench.compare.prepare import Prepared, Row
from tokbench.compare.records import announced, attempt, missing
from tokbench.data.loading import Batch, batches, check_unreadable
from tokbench.data.preprocessing import preprocessing_of
from tokbench.data.sets import ImageSet
from tokbench.measure.accuracy import image_ids
from tokbench.measure.redundancy import measure_reconstruction, measure_spectra
from tokbench.results.store import Records, Store
from tokbench.vit.models import Pretrained

# Kinds of records.
SPECTRA = "spectra"
RECONSTRUCTION = "reconstruction"

IMAGES = 64  # evenly spaced over the set: the means over them are known to a few percent of themselves
BATCH = 16  # all heads' attention matrices of so many images are in memory at once

SETTING = ["model", "method", "params", "regime", "site", "schedule", "keep", "seed"]

SPECTRA_COLUMNS = {
    "model": "string",
    "depth": "int64",
    **dict.fromkeys(("frequency", "before", "after", "gain"), "float64"),
    "images": "int64",
}
"""Every column of `spectra` in order, with its type."""

RECONSTRUCTION_COLUMNS = {
    **dict.fromkeys(("model", "method", "params", "regime", "site", "schedule"), "string"),
    "keep": "float64",
    "seed": "Int64",
    **dict.fromkeys(("depth", "patches"), "int64"),
    **dict.fromkeys(("tokens", "error", "error_sd"), "float64"),
    "images": "int64",
}
"""Every column of `reconstruction` in order, with its type."""


def analyse(rows: list[Row], model: Pretrained, prepared: Prepared, store: Store, progress: Progress) -> None:
    """Measure the redundancy of what has no record of it yet.

    Args:
        rows: Of one model.
        model: On its device.
        prepared: The plan.
        store: Where it goes.
        progress: Shows how far it is.

    Raises:
        UserError: None of the images can be read.
    """
    kinds = {kind: missing(rows, kind, store) for kind in (SPECTRA, RECONSTRUCTION)}
    if prepared.images is None or not any(kinds.values()):
        return
    images = prepared.images.head(IMAGES)
    seen = _decoded(images, model)
    for kind, measure in ((SPECTRA, _spectra), (RECONSTRUCTION, _reconstruction)):
        for key, row in announced(kinds[kind], kind, progress):
            attempt(kind, key, store, partial(measure, row, model, images, seen))


def spectra(plan: Mapping[str, Any], store: Records) -> pd.DataFrame:
    """The spectra of the models' blocks: a line for each model, depth and ring of frequencies.

    Args:
        plan: The comparison's plan.
        store: Its records.

    Returns:
        `frequency` is the middle of the ring as a fraction of Nyquist, 0 for the mean of all patch tokens; `before`
        and `after` are the fractions of the energy that lie there without and with the mixing by attention, each of
        sum 1 over a block's rings; `gain` is the energy after divided by the energy before, missing where there was
        none; and `images` counts.
    """
    models = {row["keys"][SPECTRA]: row["model"] for row in plan["rows"] if SPECTRA in row["keys"]}
    parts = [
        pd.DataFrame({"frequency": record["frequency"], "before": before, "after": after}).assign(
            model=model, depth=depth, images=record["images"]
        )
        for key, model in models.items()
        if (record := store.get(SPECTRA, key)) is not None
        for depth, (before, after) in enumerate(zip(record["before"], record["after"], strict=True))
    ]
    if not parts:
        return pd.DataFrame(columns=list(SPECTRA_COLUMNS)).astype(SPECTRA_COLUMNS)
    joined = pd.concat(parts, ignore_index=True)
    whole = joined.groupby(["model", "depth"])[["before", "after"]].transform("sum")
    joined["gain"] = (joined["after"] / joined["before"]).where(joined["before"] > 0)
    joined[["before", "after"]] /= whole
    return joined[list(SPECTRA_COLUMNS)].astype(SPECTRA_COLUMNS)


def reconstruction(plan: Mapping[str, Any], store: Records) -> pd.DataFrame:
    """The reconstruction errors of the methods: a line for each setting, seed and depth.

    Args:
        plan: The comparison's plan.
        store: Its records.

    Returns:
        The setting's columns as the table has them; `patches` that entered a reduction and `tokens` that it left, the
        `error` (see `measure.redundancy`) with its standard deviation over images, and how many `images` there were.
    """
    table = pd.DataFrame(_stages(plan, store), columns=list(RECONSTRUCTION_COLUMNS)).astype(RECONSTRUCTION_COLUMNS)
    return table.drop_duplicates(subset=[*SETTING, "depth"], ignore_index=True)


def _decoded(images: ImageSet, model: Pretrained) -> list[Batch]:
    """The images that can be read, as the model reads them; which cannot is told where accuracy is measured."""
    preprocessing, weight = preprocessing_of(model.vit), model.vit.patch_embed.proj.weight
    read = list(batches(images, preprocessing.pixels, batch_size=BATCH, workers=0))
    pixels = [batch for batch, _ in read if len(batch.index)]
    seen = [replace(batch, images=preprocessing.normalise(batch.images, weight)) for batch in pixels]
    if not seen:
        check_unreadable([lost for _, several in read for lost in several], len(images))
    return seen


def _spectra(row: Row, model: Pretrained, images: ImageSet, seen: list[Batch]) -> dict[str, Any]:
    return asdict(measure_spectra(model.vit, seen))


def _reconstruction(row: Row, model: Pretrained, images: ImageSet, seen: list[Batch]) -> dict[str, Any]:
    method, schedule = row.cell.variant.build()
    site, seed = row.cell.variant.site, row.cell.seed or 0
    stages = measure_reconstruction(model.vit, method, schedule, seen, image_ids(images.names), site=site, seed=seed)
    return {"stages": [asdict(stage) for stage in stages], "images": sum(len(batch.index) for batch in seen)}


def _stages(plan: Mapping[str, Any], store: Records) -> Iterator[dict[str, Any]]:
    for row in plan["rows"]:
        record = store.get(RECONSTRUCTION, row["keys"].get(RECONSTRUCTION, ""))
        if record is not None:
            setting = {name: row[name] for name in SETTING}
            yield from ({**setting, **stage, "images": record["images"]} for stage in record["stages"])
