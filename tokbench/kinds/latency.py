"""Time of a batch, in pairs with the plain model.

A session is everything that is timed in one go with one batch size and mode. It begins with the plain model against
itself, so that every verdict knows by how much identical programs differed then: the noise floor.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tokbench.kinds.base import Column, Conditions, Kind, Pace
from tokbench.kinds.samples import GpuCondition, LatencyRecord, NoiseRecord, Samples
from tokbench.names import COMPILED, EAGER, PLAIN, RUNTIMES, TIMES
from tokbench.stats.times import MIN_ROUNDS, compare_times, floor_of, median_interval, percentile

if TYPE_CHECKING:
    from torch import Tensor

    from tokbench.measure.call_timer import Forward
    from tokbench.results import PlannedRow, Results
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row
    from tokbench.vit.backbone import DownsampledViT

MUCH_LOAD = 0.1  # of the CPUs, by other processes: intervals widen
HOST_BOUND = 0.9  # of the time, in which the host still queues operators: the GPU waits for it
POWER_CAP = "power cap"  # see `measure.gpu.THROTTLING`
COMPILE_SECONDS = 20.0  # to compile a model, roughly
EXPORT_SECONDS = 10.0  # to export a model and open it in a runtime, roughly
CHOOSING = 0.1  # duration of the runs that show the share of choosing tokens, as a fraction of the sampling time
TAILS = {"p90": 0.9, "p99": 0.99}
START_SECONDS = {
    **dict.fromkeys(COMPILED, COMPILE_SECONDS),
    **dict.fromkeys(RUNTIMES, EXPORT_SECONDS),
}


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
        Column("host_ms", heading="host", unit="ms", dropped=6),
        Column("attention_ran", "string", heading="attention ran"),
        Column("speedup_over_eager", heading="over eager", unit=TIMES, decimals=2, dropped=2),
        Column("same_top1", heading="as eager", unit="%", step=0.1, dropped=7),
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
            **({"cold": True} if suite.cold else {}),
        }

    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """Warm-up, samples and choosing of every row, every session's noise floor, and compiling or exporting."""
        from tokbench.measure.choosing import MIN_RUNS
        from tokbench.measure.latency import FLOOR_BLOCKS, WARM_UP

        timed = [(row.cell.batch_size, row.cell.mode) for row in rows]
        total = sum(max(CHOOSING * pace.suite.seconds, MIN_RUNS * batch * pace.image_s) for batch, _ in timed)
        for batch, mode in [*timed, *FLOOR_BLOCKS * list(dict.fromkeys(timed))]:
            round_s = 2 * batch * pace.image_s
            limit = pace.suite.seconds
            total += max(limit, MIN_ROUNDS * round_s) + max(WARM_UP * limit, 2 * round_s)
            total += 2 * START_SECONDS.get(mode, 0.0)
        return total

    def measure(self, rows: Mapping[str, Row], bench: Bench) -> None:
        """Time rows in sessions of one batch size and mode."""
        for batch_size, mode in dict.fromkeys((row.cell.batch_size, row.cell.mode) for row in rows.values()):
            own = {key: row for key, row in rows.items() if (row.cell.batch_size, row.cell.mode) == (batch_size, mode)}
            session = uuid.uuid4().hex[:12]
            bench.observer.announce("noise floor")
            first = next(iter(own.values()))
            plain_images = bench.plain_images(own.values())
            plain = _Plain(first, plain_images[:batch_size], bench)
            if bench.attempt(NOISE, session, partial(_noise, plain)):
                for alike in bench.same_images(own):
                    smaller = next(iter(alike.values())).cell.variant.img_size is not None
                    images = bench.sample_images(alike.values()) if smaller else plain_images
                    for key, row in bench.each(self, alike):
                        bench.attempt(self, key, partial(_times, row, plain, plain_images, images, bench, session))
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
            "host_ms": 1e3 * record.host_s[1] if record.host_s else None,
            "attention_ran": "+".join(record.attention) or None,
            "same_top1": None if record.same_top1 is None else 100 * record.same_top1,
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
        if record.alone_s:
            plain_s, row_s = record.alone_s
            remarks.append(
                f"each alone: plain {1e3 * plain_s:.2f} ms, this {1e3 * row_s:.2f} ms, {plain_s / row_s:.2f} {TIMES}"
            )
        if (
            record.host_s
            and row.id.mode not in RUNTIMES
            and record.host_s[1] > HOST_BOUND * float(np.median(record.other_s))
        ):
            remarks.append("host-bound: the GPU waits for the host to start its operators; see --mode cudagraph")
        if results.plan.suite.cold:
            remarks.append("cold: the caches were cleared before each call")
        if record.difference is not None:
            remarks.append(f"largest difference from a logit of the eager model: {record.difference:.1e}")
        if record.same_top1 is not None and record.same_top1 < 1:
            remarks.append("its answers differ from the eager model's")
        return remarks

    def complete(self, table: pd.DataFrame, results: Results) -> pd.DataFrame:
        """The plain model's eager time divided by a row's in another mode, which is of another session."""
        if table.empty or table["mode"].eq(EAGER).all():
            return table
        plain = table[table["mode"].eq(EAGER) & table["method"].eq(PLAIN) & table["params"].eq("")]
        eager_ms = {(row.model, row.batch_size): row.latency_ms for row in plain.itertuples()}
        of_rows = [eager_ms.get((row.model, row.batch_size), math.nan) for row in table.itertuples()]
        over = (pd.Series(of_rows, table.index) / table["latency_ms"]).where(table["mode"].ne(EAGER))
        return table.assign(speedup_over_eager=over)

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


@dataclass(frozen=True, eq=False)
class _Plain:
    """The plain model of a session."""

    row: Row
    images: Tensor
    bench: Bench

    @cached_property
    def rebuild(self) -> Callable[[], Forward]:
        """Builds it anew; for a runtime it is exported once."""
        from tokbench.measure.modes import rebuilding

        return rebuilding(self.bench.plain(self.row), self.row.cell.mode, self.images)

    def open(self, batch: Tensor) -> Forward:
        """The function that runs it on batches like this one."""
        from tokbench.measure.modes import in_mode

        mode = self.row.cell.mode
        return self.rebuild() if mode in RUNTIMES else in_mode(self.bench.plain(self.row), mode, batch)


def _noise(plain: _Plain) -> NoiseRecord:
    from tokbench.measure.latency import measure_floor
    from tokbench.measure.modes import forget_compiled

    forget_compiled()
    suite = plain.bench.suite
    blocks = measure_floor(plain.rebuild, [plain.images], suite.seconds, suite.precision, flush=_flush(plain.bench))
    return NoiseRecord(tuple(Samples(**asdict(block)) for block in blocks))


def _times(
    row: Row, session_plain: _Plain, plain_images: Tensor, images: Tensor, bench: Bench, session: str
) -> LatencyRecord:
    from tokbench.measure.attention_kernels import attention_kernels
    from tokbench.measure.choosing import choosing_shares
    from tokbench.measure.latency import measure_alone, measure_latency
    from tokbench.measure.modes import forget_compiled, in_mode
    from tokbench.measure.under_load import condition_under_load

    forget_compiled()
    plain_batches, batches = bench.batches(row, plain_images), bench.batches(row, images)
    model, mode, suite = bench.build(row), row.cell.mode, bench.suite
    plain = session_plain.open(plain_batches[0])
    other = in_mode(model, mode, batches[0])
    agreement = _agreement(row, model, other, batches[0])
    latency = measure_latency(
        plain, other, plain_batches, suite.seconds, suite.precision, other_batches=batches, flush=_flush(bench)
    )
    loaded = (condition_under_load(plain, plain_batches[0]), condition_under_load(other, batches[0]))
    moments = tuple(GpuCondition(**asdict(moment)) for moment in loaded if moment)
    alone: tuple[float, ...] = ()
    if any(POWER_CAP in moment.throttled for moment in moments):
        alone = (measure_alone(plain, plain_batches, suite.seconds), measure_alone(other, batches, suite.seconds))
    eager = mode == EAGER
    return LatencyRecord(
        **asdict(latency),
        session=session,
        gpu=moments,
        choosing=choosing_shares(model, batches, CHOOSING * suite.seconds) if eager and _has_clock(bench) else (),
        attention=attention_kernels(model, batches[0]) if eager else (),
        alone_s=alone,
        **agreement,
    )


def _agreement(row: Row, model: DownsampledViT, other: Forward, batch: Tensor) -> dict[str, float]:
    """How far the answers in a runtime are those of the eager model; nothing in torch's own modes."""
    if row.cell.mode not in RUNTIMES:
        return {}
    from tokbench.deploy.agreement import compare_outputs

    compared = compare_outputs(model, other, batch)
    return {"same_top1": compared.top1, "difference": compared.largest}


def _has_clock(bench: Bench) -> bool:
    """Whether time can be read within a model: on a CPU by the clock, on CUDA by events in the queue."""
    return bench.device.type in ("cpu", "cuda")


def _flush(bench: Bench) -> Callable[[], None] | None:
    from tokbench.measure.cold import cache_flush

    return cache_flush(bench.device) if bench.suite.cold else None
