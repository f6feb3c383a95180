"""Redundancy of tokens: spectra of the plain model's blocks, and reconstruction errors of methods.

`--analyse` asks for both. Neither depends on the timed batch size or mode, so rows that differ in these share records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from tokbench.kinds.base import Conditions, Kind, Pace
from tokbench.names import PLAIN
from tokbench.rows import ANSWER

if TYPE_CHECKING:
    import torch

    from tokbench.results import Results
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row
    from tokbench.suite import Suite

R = TypeVar("R")

IMAGES = 64  # evenly spaced over the set: the means over them are known to a few percent of themselves
BATCH = 16  # all heads' attention matrices of so many images are in memory at once

HIGH = 0.5  # of Nyquist, which is half a cycle per patch: frequencies above it count as high

SPECTRA_COLUMNS = {
    "model": "string",
    "depth": "int64",
    **dict.fromkeys(("frequency", "before", "after", "gain"), "float64"),
    "images": "int64",
}
"""Every column of `spectra.csv` in order, with its type."""

RECONSTRUCTION_COLUMNS = {
    **dict.fromkeys(("model", "method", "params", "regime", "site", "schedule"), "string"),
    "keep": "float64",
    "seed": "Int64",
    **dict.fromkeys(("depth", "patches"), "int64"),
    **dict.fromkeys(("tokens", "error", "error_sd"), "float64"),
    "images": "int64",
}
"""Every column of `reconstruction.csv` in order, with its type."""


@dataclass(frozen=True)
class SpectraRecord:
    """The energy of each block's values by frequency; see `measure.redundancy.Spectra`."""

    frequency: tuple[float, ...]
    before: tuple[tuple[float, ...], ...]
    after: tuple[tuple[float, ...], ...]
    images: int


@dataclass(frozen=True)
class Stage:
    """One reduction of the plain model's tokens; see `measure.redundancy.Reconstruction`."""

    depth: int
    patches: int
    tokens: float
    error: float
    error_sd: float


@dataclass(frozen=True)
class ReconstructionRecord:
    """The reductions of a method's schedule, each from all patch tokens, and how many images they are means of."""

    stages: tuple[Stage, ...]
    images: int


class _AnalysisKind(Kind[R]):
    """What `--analyse` measures, on a sample of the images."""

    on_request = False

    def needs_data(self, suite: Suite) -> tuple[str, str] | None:
        """Always."""
        return ("analyse", "leave --analyse out") if suite.analyse else None

    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """A forward pass over the sample."""
        return len(rows) * min(IMAGES, pace.images) * pace.image_s


class Spectra(_AnalysisKind[SpectraRecord]):
    """Spectra of the plain model's blocks."""

    name = "spectra"
    record = SpectraRecord

    def wanted(self, row: Row, suite: Suite, device: torch.device) -> bool:
        """Of the plain model with fused attention; without fusion the spectra are the same."""
        variant = row.cell.variant
        return suite.analyse and variant.method == PLAIN and not variant.params and variant.fine_tuned is None

    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        """What runs, where, and on which images."""
        return {**conditions.method, **conditions.device, "data": conditions.data}

    def measure_row(self, row: Row, bench: Bench) -> SpectraRecord:
        """Of a sample of the images."""
        from tokbench.measure.redundancy import measure_spectra

        return SpectraRecord(**asdict(measure_spectra(bench.plain(row), bench.decoded(row, IMAGES, BATCH))))

    def tables(self, results: Results) -> dict[str, pd.DataFrame]:
        """Written where there is any."""
        table = spectra_table(results)
        return {} if table.empty else {"spectra.csv": table}


class Reconstruction(_AnalysisKind[ReconstructionRecord]):
    """Reconstruction errors of a method."""

    name = "reconstruction"
    record = ReconstructionRecord

    def wanted(self, row: Row, suite: Suite, device: torch.device) -> bool:
        """Of every method."""
        return suite.analyse and row.cell.variant.method != PLAIN and row.cell.variant.fine_tuned is None

    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        """What runs, where, on which images, and the seed."""
        return {**conditions.method, **conditions.device, "data": conditions.data, "seed": conditions.seed}

    def measure_row(self, row: Row, bench: Bench) -> ReconstructionRecord:
        """Of a sample of the images."""
        from tokbench.measure.redundancy import measure_reconstruction

        batches = bench.decoded(row, IMAGES, BATCH)
        method, schedule = bench.method(row)
        stages = measure_reconstruction(
            bench.plain(row),
            method,
            schedule,
            batches,
            bench.ids(IMAGES),
            site=row.cell.variant.site,
            seed=row.cell.seed or 0,
            constants=bench.constants(row),
        )
        images = sum(len(batch.index) for batch in batches)
        return ReconstructionRecord(tuple(Stage(**asdict(stage)) for stage in stages), images)

    def tables(self, results: Results) -> dict[str, pd.DataFrame]:
        """Written where there is any."""
        table = reconstruction_table(results)
        return {} if table.empty else {"reconstruction.csv": table}


SPECTRA = Spectra()
RECONSTRUCTION = Reconstruction()


def spectra_table(results: Results) -> pd.DataFrame:
    """The spectra of the models' blocks: a line for each model, depth and ring of frequencies.

    Returns:
        `frequency` is the middle of the ring as a fraction of Nyquist, 0 for the mean of all patch tokens; `before`
        and `after` are the fractions of the energy in the ring without and with the mixing by attention, each of
        sum 1 over a block's rings; `gain` is the energy after divided by the energy before, missing where there was
        none; and `images` counts.
    """
    rows = {row.keys[SPECTRA.name]: row for row in results.plan.rows if SPECTRA.name in row.keys}
    parts = [
        pd.DataFrame({"frequency": record.frequency, "before": before, "after": after}).assign(
            model=row.id.model, depth=depth, images=record.images
        )
        for row in rows.values()
        if (record := results.record(SPECTRA, row)) is not None
        for depth, (before, after) in enumerate(zip(record.before, record.after, strict=True))
    ]
    if not parts:
        return pd.DataFrame(columns=list(SPECTRA_COLUMNS)).astype(SPECTRA_COLUMNS)
    joined = pd.concat(parts, ignore_index=True)
    whole = joined.groupby(["model", "depth"])[["before", "after"]].transform("sum")
    joined["gain"] = (joined["after"] / joined["before"]).where(joined["before"] > 0)
    joined[["before", "after"]] /= whole
    return joined[list(SPECTRA_COLUMNS)].astype(SPECTRA_COLUMNS)


def reconstruction_table(results: Results) -> pd.DataFrame:
    """The reconstruction errors of the methods: a line for each setting, seed and depth.

    Returns:
        The setting's columns as in the main table; `patches` that entered a reduction and `tokens` that it left, the
        `error` (see `measure.redundancy`) with its standard deviation over images, and the number of `images`.
    """
    table = pd.DataFrame(_stages(results), columns=list(RECONSTRUCTION_COLUMNS)).astype(RECONSTRUCTION_COLUMNS)
    return table.drop_duplicates(subset=[*ANSWER, "depth"], ignore_index=True)


def _stages(results: Results) -> Iterator[dict[str, Any]]:
    for row in results.plan.rows:
        record = results.record(RECONSTRUCTION, row)
        if record is not None:
            setting = {name: getattr(row.id, name) for name in ANSWER}
            yield from ({**setting, **asdict(stage), "images": record.images} for stage in record.stages)
