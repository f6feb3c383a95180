"""Energy per image, in alternating blocks with the plain model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tokbench.kinds.base import Column, Conditions, Kind, Pace
from tokbench.names import TIMES
from tokbench.stats.times import median_interval

if TYPE_CHECKING:
    from torch import Tensor

    from tokbench.results import PlannedRow, Results
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row

MUCH_LOAD = 0.1  # of the CPUs, by other processes
COARSE = 0.02  # relative error of a block from its ends


@dataclass(frozen=True)
class EnergyRecord:
    """Joules per image, idle power included, or why there are none.

    Attributes:
        meter: What was read: `NVML` (the GPU's board) or `RAPL` (all packages of the CPUs); empty where nothing was.
        base_j: The plain model's, one per block.
        other_j: The row's in the neighbouring blocks.
        idle_w: Power of the idle device, watts.
        edge: The largest relative error of a block from its ends.
        other_load: Share of all CPUs that other processes used, 0 to 1.
        reason: Why nothing was measured; empty where something was.
    """

    meter: str = ""
    base_j: tuple[float, ...] = ()
    other_j: tuple[float, ...] = ()
    idle_w: float = 0.0
    edge: float = 0.0
    other_load: float = 0.0
    reason: str = ""


class Energy(Kind[EnergyRecord]):
    """Energy per image, how many times less than the plain model's it is, and the idle power."""

    name = "energy"
    record = EnergyRecord
    exclusive = True
    live_columns = ("joules_per_image", "energy_saving")
    columns = (
        Column(
            "joules_per_image",
            heading="energy",
            unit="J/img",
            interval="joules_per_image",
            out_of="plain_joules_per_image",
            dropped=3,
        ),
        Column("joules_per_image_lo"),
        Column("joules_per_image_hi"),
        Column("plain_joules_per_image", heading="plain energy", unit="J/img"),
        Column(
            "energy_saving", heading="energy saving", unit=TIMES, interval="energy_saving", compared=True, dropped=1
        ),
        Column("energy_saving_lo"),
        Column("energy_saving_hi"),
        Column("idle_w", heading="idle", unit="W", step=1.0, dropped=8),
    )

    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        """What a time depends on, and whether there is a counter: where one can be read later, it is measured again."""
        from tokbench.measure.energy_meter import meter_name

        return {
            **conditions.method,
            **conditions.machine,
            **({"data": conditions.data} if conditions.adaptive else {}),
            "batch": conditions.batch_size,
            "mode": conditions.mode,
            "threads": conditions.threads,
            "seconds": conditions.suite.seconds,
            "meter": meter_name(conditions.device["device"]),
        }

    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """Idling, warm-up and blocks, as if there were a counter."""
        from tokbench.measure.energy import BLOCK_S, IDLE_S, LEAD_S, PAIRS

        block_s = LEAD_S + max(BLOCK_S, pace.suite.seconds)
        return len(rows) * (2 * IDLE_S + 2 * LEAD_S + 2 * PAIRS * block_s)

    def measure(self, rows: Mapping[str, Row], bench: Bench) -> None:
        """One row after the other, or the reason for each where the device has no counter."""
        from tokbench.measure.energy_meter import NoMeterError, meter_of

        try:
            meter_of(bench.device)
        except NoMeterError as error:
            for key, _ in bench.each(self, rows):
                bench.add(self, key, EnergyRecord(reason=str(error)))
            return
        plain_images = bench.plain_images(rows.values())
        for alike in bench.same_images(rows):
            smaller = next(iter(alike.values())).cell.variant.img_size is not None
            images = bench.sample_images(alike.values()) if smaller else plain_images
            for key, row in bench.each(self, alike):
                bench.attempt(self, key, partial(_energy, row, plain_images, images, bench))

    def fill(self, row: PlannedRow, plain: PlannedRow | None, results: Results) -> dict[str, Any]:
        """Medians over blocks with intervals; nothing where nothing was measured."""
        record = results.record(self, row)
        if record is None or not record.other_j:
            return {}
        joules, saving = median_interval(record.other_j), _saving(record)
        return {
            "joules_per_image": joules.estimate,
            "joules_per_image_lo": joules.lo,
            "joules_per_image_hi": joules.hi,
            "plain_joules_per_image": float(np.median(record.base_j)),
            "energy_saving": saving[0],
            "energy_saving_lo": saving[1],
            "energy_saving_hi": saving[2],
            "idle_w": record.idle_w,
        }

    def remarks(self, row: PlannedRow, results: Results) -> list[str]:
        """Why there is no energy, what the counter counts beside this program, and coarse blocks."""
        record = results.record(self, row)
        if record is None:
            return []
        if record.reason:
            return [f"no energy: {record.reason}"]
        remarks = []
        if record.meter == "RAPL" and record.other_load > MUCH_LOAD:
            remarks.append(f"the energy contains that of other processes, {100 * record.other_load:.0f} % of the CPUs")
        if record.edge > COARSE:
            remarks.append(
                f"a block's energy may be {100 * record.edge:.0f} % off, as few batches fit into it: more --seconds"
            )
        return remarks

    def live(self, records: Sequence[EnergyRecord]) -> dict[str, float]:
        """Median energy and saving."""
        if not records or not records[-1].other_j:
            return {}
        return {
            "joules_per_image": float(np.median(records[-1].other_j)),
            "energy_saving": _saving(records[-1])[0],
        }


def _saving(record: EnergyRecord) -> tuple[float, float, float]:
    """The plain model's energy divided by the row's, median over pairs of neighbouring blocks, and its interval."""
    interval = median_interval(np.log(record.base_j) - np.log(record.other_j))
    estimate, lo, hi = np.exp([interval.estimate, interval.lo, interval.hi])
    return float(estimate), float(lo), float(hi)


def _energy(row: Row, plain_images: Tensor, images: Tensor, bench: Bench) -> EnergyRecord:
    from tokbench.measure.energy import BLOCK_S, measure_energy
    from tokbench.measure.energy_meter import NoMeterError, meter_of
    from tokbench.measure.modes import forget_compiled, in_mode

    forget_compiled()
    plain_batches, batches = bench.batches(row, plain_images), bench.batches(row, images)
    plain = in_mode(bench.plain(row), row.cell.mode, plain_batches[0])
    other = in_mode(bench.build(row), row.cell.mode, batches[0])
    seconds = max(BLOCK_S, bench.suite.seconds)
    try:
        meter = meter_of(bench.device)
        energy = measure_energy(plain, other, plain_batches, meter, seconds, other_batches=batches)
    except NoMeterError as error:
        return EnergyRecord(reason=str(error))
    return EnergyRecord(meter.name, **asdict(energy))
