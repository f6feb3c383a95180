"""The cost of training: time and peak memory of one training step, in pairs with the plain model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokbench.kinds.base import Column, Conditions, Kind, Pace
from tokbench.kinds.memory import PROCESS_SECONDS
from tokbench.kinds.samples import Samples
from tokbench.names import EAGER, TIMES
from tokbench.stats.times import MIN_ROUNDS, compare_times, median_interval

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tokbench.measure.memory import MeasuringProcesses
    from tokbench.results import PlannedRow, Results
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row
    from tokbench.suite import Suite

STEP = 3  # times as long as a forward pass, roughly


@dataclass(frozen=True)
class TrainingRecord(Samples):
    """Paired times of training steps, seconds per batch.

    Attributes:
        peak_mib: The peak memory of one step in MiB, with weights, gradients and the optimiser's state; None on XPU
            and MPS, whose memory nothing here asks for.
    """

    peak_mib: float | None = 0.0


class Training(Kind[TrainingRecord]):
    """Time of a training step, its speedup over the plain model, and its peak memory."""

    name = "training"
    record = TrainingRecord
    exclusive = True
    columns = (
        Column("train_images_per_s", heading="training", unit="img/s", dropped=2),
        Column("train_speedup", heading="training", unit=TIMES, interval="train_speedup", compared=True, dropped=1),
        Column("train_speedup_lo"),
        Column("train_speedup_hi"),
        Column("train_peak_mib", heading="training peak", unit="MiB", step=1.0, dropped=3),
    )

    def wanted(self, row: Row, suite: Suite, device: torch.device) -> bool:
        """Not of a plain model with other attention or images, and not compiled."""
        variant = row.cell.variant
        return self.name in suite.only and row.cell.mode == EAGER and not (variant.unfused or variant.img_size)

    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        """Everything that changes how fast a model trains here, and how long it is timed."""
        return {
            **conditions.method,
            **conditions.machine,
            **({"data": conditions.data} if conditions.adaptive else {}),
            "batch": conditions.batch_size,
            "threads": conditions.threads,
            "seconds": conditions.suite.seconds,
            "precision": conditions.suite.precision,
        }

    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """Warm-up and samples of steps, and a process each for the memory."""
        steps = [2 * STEP * row.cell.batch_size * pace.image_s for row in rows]
        return sum(max(1.25 * pace.suite.seconds, (MIN_ROUNDS + 2) * step) + PROCESS_SECONDS for step in steps)

    def measure(self, rows: Mapping[str, Row], bench: Bench) -> None:
        """One row after the other; on a CPU the memory is that of a process of its own."""
        from tokbench.measure.memory import MeasuringProcesses

        images = bench.plain_images(rows.values())
        with tempfile.TemporaryDirectory() as folder, MeasuringProcesses(preload=bench.recipe_module) as processes:
            for key, row in bench.each(self, rows):
                saved = Path(folder) / f"{row.cell.batch_size}.pt"
                if bench.device.type == "cpu" and not saved.is_file():
                    bench.save_plain(row, images[: row.cell.batch_size], saved)
                bench.attempt(self, key, partial(_measure, row, images, saved, processes, bench))

    def fill(self, row: PlannedRow, plain: PlannedRow | None, results: Results) -> dict[str, Any]:
        """Images per second, a speedup with its interval, MiB."""
        record = results.record(self, row)
        if record is None:
            return {}
        speedup = compare_times(record.base_s, record.other_s).speedup
        return {
            "train_images_per_s": (row.id.batch_size or 1) / median_interval(record.other_s).estimate,
            "train_speedup": speedup.estimate,
            "train_speedup_lo": speedup.lo,
            "train_speedup_hi": speedup.hi,
            "train_peak_mib": record.peak_mib,
        }


def _measure(row: Row, images: Tensor, saved: Path, processes: MeasuringProcesses, bench: Bench) -> TrainingRecord:
    from tokbench.measure.latency import measure_latency
    from tokbench.measure.training import training_step

    batches = bench.batches(row, images)
    plain, other = training_step(bench.plain_model(row)), training_step(bench.build(row))
    times = measure_latency(plain, other, batches, bench.suite.seconds, bench.suite.precision)
    del plain, other  # whose memory would count
    return TrainingRecord(**asdict(times), peak_mib=_peak_mib(row, batches[0], saved, processes, bench))


def _peak_mib(row: Row, batch: Tensor, saved: Path, processes: MeasuringProcesses, bench: Bench) -> float | None:
    import torch

    from tokbench.measure.memory import cpu_peak_mib, cuda_peak_mib
    from tokbench.measure.training import training_build, training_step

    if bench.device.type == "cuda":
        model = bench.build(row)
        return cuda_peak_mib(lambda: training_step(model), batch)
    if bench.device.type != "cpu":
        return None
    recipe = training_build(bench.recipe(row, saved))
    return cpu_peak_mib(processes, recipe, torch.get_num_threads(), bench.suite.dtype)
