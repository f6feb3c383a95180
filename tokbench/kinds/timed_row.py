"""Timing one row: the plain model of its session, the row's model in the same mode, and the two in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tokbench.kinds.samples import GpuCondition, LatencyRecord, NoiseRecord, Samples
from tokbench.names import EAGER, RUNTIMES

if TYPE_CHECKING:
    from torch import Tensor

    from tokbench.deploy.agreement import Difference
    from tokbench.measure.call_timer import Forward
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row
    from tokbench.vit.backbone import DownsampledViT

POWER_CAP = "power cap"  # see `measure.gpu.THROTTLING`
CHOOSING = 0.1  # duration of the runs that show the share of choosing tokens, as a fraction of the sampling time


@dataclass(frozen=True, eq=False)
class Plain:
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


def noise_of(plain: Plain) -> NoiseRecord:
    from tokbench.measure.latency import measure_floor
    from tokbench.measure.modes import forget_compiled

    forget_compiled()
    suite = plain.bench.suite
    blocks = measure_floor(plain.rebuild, [plain.images], suite.seconds, suite.precision, flush=_flush(plain.bench))
    return NoiseRecord(tuple(Samples(**asdict(block)) for block in blocks))


def times_of(
    row: Row, session_plain: Plain, plain_images: Tensor, images: Tensor, bench: Bench, session: str
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
        same_top1=None if agreement is None else agreement.top1,
        difference=agreement.largest if agreement is not None and math.isfinite(agreement.largest) else None,
    )


def _agreement(row: Row, model: DownsampledViT, other: Forward, batch: Tensor) -> Difference | None:
    """How far the answers in a runtime are those of the eager model; None in torch's own modes."""
    if row.cell.mode not in RUNTIMES:
        return None
    from tokbench.deploy.agreement import compare_outputs

    return compare_outputs(model, other, batch)


def _has_clock(bench: Bench) -> bool:
    """Whether time can be read within a model: on a CPU by the clock, on CUDA by events in the queue."""
    return bench.device.type in ("cpu", "cuda")


def _flush(bench: Bench) -> Callable[[], None] | None:
    from tokbench.measure.cold import cache_flush

    return cache_flush(bench.device) if bench.suite.cold else None
