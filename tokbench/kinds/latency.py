"""Time of a batch, in pairs with the plain model.

A session is everything that is timed in one go with one batch size and mode. It begins with the plain model against
itself, so that every verdict knows by how much identical programs differed then: the noise floor.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tokbench.kinds.base import Column, Conditions, Kind, Pace
from tokbench.kinds.samples import LatencyRecord, NoiseRecord
from tokbench.kinds.timed_row import CHOOSING, Plain, noise_of, times_of
from tokbench.names import COMPILED, EAGER, PLAIN, RUNTIMES, TIMES
from tokbench.stats.times import MIN_ROUNDS, compare_times, floor_of, median_interval, percentile

if TYPE_CHECKING:
    from tokbench.results import PlannedRow, Results
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row

MUCH_LOAD = 0.1  # of the CPUs, by other processes: intervals widen
HOST_BOUND = 0.9  # of the time, in which the host still queues operators: the GPU waits for it
COMPILE_SECONDS = 20.0  # to compile a model, roughly
EXPORT_SECONDS = 10.0  # to export a model and open it in a runtime, roughly
TAILS = {"p90": 0.9, "p99": 0.99}


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
            **conditions.machine,
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
        for batch, _ in [*timed, *FLOOR_BLOCKS * list(dict.fromkeys(timed))]:
            round_s = 2 * batch * pace.image_s
            limit = pace.suite.seconds
            total += max(limit, MIN_ROUNDS * round_s) + max(WARM_UP * limit, 2 * round_s)
        compiled = [mode for _, mode in timed if mode in COMPILED]
        exported = [mode for _, mode in timed if mode in RUNTIMES]
        total += 2 * COMPILE_SECONDS * (len(compiled) + FLOOR_BLOCKS * len(set(compiled)))
        return total + EXPORT_SECONDS * (len(exported) + len(set(exported)))  # a session's plain model once

    def measure(self, rows: Mapping[str, Row], bench: Bench) -> None:
        """Time rows in sessions of one batch size and mode."""
        for batch_size, mode in dict.fromkeys((row.cell.batch_size, row.cell.mode) for row in rows.values()):
            own = {key: row for key, row in rows.items() if (row.cell.batch_size, row.cell.mode) == (batch_size, mode)}
            session = uuid.uuid4().hex[:12]
            bench.observer.announce("noise floor")
            first = next(iter(own.values()))
            plain_images = bench.plain_images(own.values())
            plain = Plain(first, plain_images[:batch_size], bench)
            if bench.attempt(NOISE, session, partial(noise_of, plain)):
                for alike in bench.same_images(own):
                    smaller = next(iter(alike.values())).cell.variant.img_size is not None
                    images = bench.sample_images(alike.values()) if smaller else plain_images
                    for key, row in bench.each(self, alike):
                        bench.attempt(self, key, partial(times_of, row, plain, plain_images, images, bench, session))
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
