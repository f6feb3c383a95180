"""Time of a batch, in pairs with the plain model.

A session is everything that is timed in one go with one batch size and mode. It begins with the plain model against
itself, so that every verdict knows by how much identical programs differed then: the noise floor.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tokbench.kinds.base import Column, Conditions, Kind, Pace
from tokbench.names import TIMES
from tokbench.stats.times import MIN_ROUNDS, compare_times, floor_of, median_interval, percentile

if TYPE_CHECKING:
    from torch import Tensor

    from tokbench.results import PlannedRow, Results
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row

MUCH_LOAD = 0.1  # of the CPUs, by other processes: intervals widen
CHOOSING = 0.1  # duration of the runs that show the share of choosing tokens, as a fraction of the sampling time
TAILS = {"p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class GpuCondition:
    """Clocks, temperature and throttling of a GPU at one moment; see `measure.gpu.Condition`."""

    sm_mhz: int
    memory_mhz: int
    temperature_c: int
    throttled: tuple[str, ...]


@dataclass(frozen=True)
class Samples:
    """Paired times, seconds per batch.

    Attributes:
        base_s: The plain model's, one per round.
        other_s: The other model's in the same rounds.
        half_width: The precision reached: half the width of the 95 % interval of the ratio, relative to it.
        other_load: Share of all CPUs that other processes used, 0 to 1.
    """

    base_s: tuple[float, ...]
    other_s: tuple[float, ...]
    half_width: float
    other_load: float


@dataclass(frozen=True)
class LatencyRecord(Samples):
    """Paired times of one row.

    Attributes:
        session: Names the noise record of the same session.
        gpu: The GPU before and after; empty on a CPU.
        choosing: The share of the time that choosing tokens took in runs after the timed ones, 0 to 1; empty without a
            method, and in other modes than eager.
    """

    session: str = ""
    gpu: tuple[GpuCondition, ...] = ()
    choosing: tuple[float, ...] = ()


@dataclass(frozen=True)
class NoiseRecord:
    """The plain model against itself in one session, several times."""

    blocks: tuple[Samples, ...]


class Latency(Kind[LatencyRecord]):
    """Time per batch, and the speedup over the plain model with a verdict."""

    name = "latency"
    record = LatencyRecord
    exclusive = True
    live_columns = ("latency_ms", "speedup")
    columns = (
        Column("latency_ms", heading="latency", unit="ms", interval="latency_ms", out_of="plain_latency_ms", dropped=4),
        Column("latency_ms_lo"),
        Column("latency_ms_hi"),
        Column("plain_latency_ms", heading="plain latency", unit="ms"),
        Column("images_per_s", heading="img/s", dropped=7),
        Column("speedup", heading="speedup", unit=TIMES, interval="speedup", compared=True, dropped=1),
        Column("speedup_lo"),
        Column("speedup_hi"),
        Column("verdict", "string"),
        Column("choosing_share", heading="choosing", unit="%", step=1.0, only_methods=True, dropped=5),
        Column("rounds", "Int64"),
        Column("latency_ms_p90"),
        Column("latency_ms_p99"),
        Column("noise_floor"),
        Column("precision_reached"),
        Column("other_load"),
    )

    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        """Everything that changes how fast a model runs here, and how long it is timed."""
        suite = conditions.suite
        return {
            **conditions.method,
            **conditions.device,
            **({"data": conditions.data} if conditions.adaptive else {}),
            "batch": conditions.batch_size,
            "mode": conditions.mode,
            "threads": conditions.threads,
            "seconds": suite.seconds,
            "precision": suite.precision,
        }

    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """Warm-up, samples and choosing of every row, and the noise floor of every session."""
        from tokbench.measure.choosing import MIN_RUNS
        from tokbench.measure.latency import FLOOR_BLOCKS, WARM_UP

        timed = [(row.cell.batch_size, row.cell.mode) for row in rows]
        total = sum(max(CHOOSING * pace.suite.seconds, MIN_RUNS * batch * pace.image_s) for batch, _ in timed)
        for batch, _ in [*timed, *FLOOR_BLOCKS * list(dict.fromkeys(timed))]:
            round_s = 2 * batch * pace.image_s
            limit = pace.suite.seconds
            total += max(limit, MIN_ROUNDS * round_s) + max(WARM_UP * limit, 2 * round_s)
        return total

    def measure(self, rows: Mapping[str, Row], bench: Bench) -> None:
        """Time rows in sessions of one batch size and mode."""
        for batch_size, mode in dict.fromkeys((row.cell.batch_size, row.cell.mode) for row in rows.values()):
            own = {key: row for key, row in rows.items() if (row.cell.batch_size, row.cell.mode) == (batch_size, mode)}
            session = uuid.uuid4().hex[:12]
            bench.observer.announce("noise floor")
            first = next(iter(own.values()))
            plain_images = bench.plain_images(own.values())
            if bench.attempt(NOISE, session, partial(_noise, first, plain_images[:batch_size], bench)):
                for alike in bench.same_images(own):
                    smaller = next(iter(alike.values())).cell.variant.img_size is not None
                    images = bench.sample_images(alike.values()) if smaller else plain_images
                    for key, row in bench.each(self, alike):
                        bench.attempt(self, key, partial(_times, row, plain_images, images, bench, session))
            else:
                for key in own:
                    bench.pass_on(self, key, NOISE, session)

    def fill(self, row: PlannedRow, plain: PlannedRow | None, results: Results) -> dict[str, Any]:
        """Medians with intervals; a verdict against the noise floor of the row's session."""
        record = results.record(self, row)
        if record is None:
            return {}
        latency = median_interval(record.other_s)
        noise = results.read(NOISE, record.session)
        floor = noise_floor(noise)
        against = compare_times(record.base_s, record.other_s, floor)
        tails = {name: percentile(record.other_s, quantile) for name, quantile in TAILS.items()}
        return {
            "latency_ms": 1e3 * latency.estimate,
            "latency_ms_lo": 1e3 * latency.lo,
            "latency_ms_hi": 1e3 * latency.hi,
            **{f"latency_ms_{name}": None if tail is None else 1e3 * tail for name, tail in tails.items()},
            "rounds": len(record.other_s),
            "images_per_s": (row.id.batch_size or 1) / latency.estimate,
            "speedup": against.speedup.estimate,
            "speedup_lo": against.speedup.lo,
            "speedup_hi": against.speedup.hi,
            "verdict": str(against.verdict),
            "plain_latency_ms": 1e3 * float(np.median(record.base_s)),
            # The median would be too small on a busy machine: what interrupts a run mostly does so outside the method.
            "choosing_share": 100 * float(np.mean(record.choosing)) if record.choosing else None,
            "noise_floor": 100 * floor,
            "precision_reached": 100 * record.half_width,
            "other_load": record.other_load,
        }

    def remarks(self, row: PlannedRow, results: Results) -> list[str]:
        """A precision that was not reached, load by other processes, and throttling."""
        record = results.record(self, row)
        if record is None:
            return []
        remarks = []
        if record.half_width > results.plan.suite.precision:
            remarks.append(
                f"precision reached {100 * record.half_width:.1f} %, not {100 * results.plan.suite.precision:g} %: "
                "the time limit was reached"
            )
        if record.other_load > MUCH_LOAD:
            remarks.append(f"other processes used {100 * record.other_load:.0f} % of the CPUs")
        reasons = sorted({reason for moment in record.gpu for reason in moment.throttled})
        if reasons:
            remarks.append(f"the GPU's clocks were reduced: {', '.join(reasons)}")
        return remarks

    def live(self, records: Sequence[LatencyRecord]) -> dict[str, float]:
        """Median time and speedup."""
        if not records:
            return {}
        plain_s, row_s = np.array(records[-1].base_s), np.array(records[-1].other_s)
        speedup = math.exp(np.median(np.log(plain_s) - np.log(row_s)))
        return {"latency_ms": 1e3 * float(np.median(row_s)), "speedup": speedup}


class Noise(Kind[NoiseRecord]):
    """The plain model against itself, measured by `Latency` once per session; it has no rows of its own."""

    name = "noise"
    record = NoiseRecord
    on_request = False

    def wanted(self, *_: Any) -> bool:
        """No row asks for it."""
        return False

    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        """A session's name is its key."""
        return {}

    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """Counted with latency."""
        return 0.0


LATENCY, NOISE = Latency(), Noise()


@lru_cache(maxsize=256)  # all rows of a session ask for it
def noise_floor(noise: NoiseRecord | None) -> float:
    """By how much the plain model surely differed from itself in a session, as a fraction."""
    return floor_of([compare_times(block.base_s, block.other_s) for block in noise.blocks]) if noise else 0.0


def _noise(row: Row, images: Tensor, bench: Bench) -> NoiseRecord:
    from tokbench.measure.latency import measure_floor
    from tokbench.measure.modes import forget_compiled, in_mode

    forget_compiled()
    plain = in_mode(bench.plain(row), row.cell.mode, images)
    blocks = measure_floor(plain, [images], bench.suite.seconds, bench.suite.precision)
    return NoiseRecord(tuple(Samples(**asdict(block)) for block in blocks))


def _times(row: Row, plain_images: Tensor, images: Tensor, bench: Bench, session: str) -> LatencyRecord:
    from tokbench.measure.choosing import choosing_shares
    from tokbench.measure.gpu import condition
    from tokbench.measure.latency import measure_latency
    from tokbench.measure.modes import forget_compiled, in_mode

    forget_compiled()
    plain_batches, batches = bench.batches(row, plain_images), bench.batches(row, images)
    model = bench.build(row)
    plain = in_mode(bench.plain(row), row.cell.mode, plain_batches[0])
    other = in_mode(model, row.cell.mode, batches[0])
    before = condition(bench.device)
    suite = bench.suite
    latency = measure_latency(plain, other, plain_batches, suite.seconds, suite.precision, other_batches=batches)
    moments = tuple(GpuCondition(**asdict(moment)) for moment in (before, condition(bench.device)) if moment)
    choosing = choosing_shares(model, batches, CHOOSING * bench.suite.seconds) if row.cell.mode == "eager" else ()
    return LatencyRecord(**asdict(latency), session=session, gpu=moments, choosing=choosing)
