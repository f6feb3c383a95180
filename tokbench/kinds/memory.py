"""The most memory that a model takes for one batch."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokbench.kinds.base import Column, Conditions, Kind, Pace
from tokbench.names import COMPILED, EAGER, MODES, RUNTIMES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tokbench.measure.memory import MeasuringProcesses
    from tokbench.results import PlannedRow, Results
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row
    from tokbench.suite import Suite

PROCESS_SECONDS = 0.5  # a process that loads a model and runs it once


@dataclass(frozen=True)
class MemoryRecord:
    """Peak memory in MiB, weights included."""

    peak_mib: float


class Memory(Kind[MemoryRecord]):
    """Peak memory of one batch."""

    name = "memory"
    record = MemoryRecord
    exclusive = True
    columns = (Column("peak_mib", heading="peak", unit="MiB", step=1.0, dropped=8),)

    def wanted(self, row: Row, suite: Suite, device: torch.device) -> bool:
        """On a CPU not where compiling takes more memory than what it compiles; a runtime's memory is not torch's.

        Not on XPU and MPS, whose memory nothing here asks for.
        """
        modes = {"cpu": (EAGER,), "cuda": [mode for mode in MODES if mode not in RUNTIMES]}
        return self.name in suite.only and row.cell.mode in modes.get(device.type, ())

    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        """What runs, where, and with how many images and threads."""
        return {
            **conditions.method,
            **conditions.machine,
            **({"data": conditions.data} if conditions.adaptive else {}),
            "batch": conditions.batch_size,
            "mode": conditions.mode,
            "threads": conditions.threads,
        }

    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """A process each."""
        return PROCESS_SECONDS * len(rows)

    def measure(self, rows: Mapping[str, Row], bench: Bench) -> None:
        """Ask CUDA's allocator, or run each row in a process of its own."""
        for alike in bench.same_images(rows):
            sizes = [row.cell.batch_size for row in alike.values()]
            images = bench.some_images(next(iter(alike.values())), max(sizes))
            measure = self._on_cuda if bench.device.type == "cuda" else self._on_cpu
            measure(alike, images, bench)

    def _on_cuda(self, rows: Mapping[str, Row], images: Tensor, bench: Bench) -> None:
        images = images.cpu()  # those of the largest batch would count as every row's memory
        for key, row in bench.each(self, rows):
            bench.attempt(self, key, partial(_on_cuda, row, images, bench))

    def _on_cpu(self, rows: Mapping[str, Row], images: Tensor, bench: Bench) -> None:
        from tokbench.measure.memory import MeasuringProcesses

        with tempfile.TemporaryDirectory() as folder, MeasuringProcesses(preload=bench.recipe_module) as processes:
            for key, row in bench.each(self, rows):
                saved = Path(folder) / f"{row.cell.batch_size}.pt"
                if not saved.is_file():
                    bench.save_plain(row, images[: row.cell.batch_size], saved)
                bench.attempt(self, key, partial(_on_cpu, row, saved, processes, bench))

    def fill(self, row: PlannedRow, plain: PlannedRow | None, results: Results) -> dict[str, Any]:
        """MiB."""
        record = results.record(self, row)
        return {} if record is None else {"peak_mib": record.peak_mib}


def _on_cuda(row: Row, images: Tensor, bench: Bench) -> MemoryRecord:
    from tokbench.measure.memory import cuda_peak_mib
    from tokbench.measure.modes import forget_compiled, in_mode

    forget_compiled()
    model, mode = bench.build(row), row.cell.mode
    batch = images[: row.cell.batch_size].to(bench.device)
    return MemoryRecord(cuda_peak_mib(lambda: in_mode(model, mode, batch), batch, calls_before=int(mode in COMPILED)))


def _on_cpu(row: Row, saved: Path, processes: MeasuringProcesses, bench: Bench) -> MemoryRecord:
    import torch

    from tokbench.measure.memory import cpu_peak_mib

    return MemoryRecord(cpu_peak_mib(processes, bench.recipe(row, saved), torch.get_num_threads(), bench.suite.dtype))
