"""Throughput: images per second while batches are queued, each model at its best batch size or at a given one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tokbench.kinds.base import Column, Conditions, Kind, Pace
from tokbench.names import TIMES
from tokbench.stats.times import compare_times, median_interval

if TYPE_CHECKING:
    from torch import Tensor

    from tokbench.results import PlannedRow, Results
    from tokbench.run.bench import Bench
    from tokbench.run.prepare import Row

SOURCE_IMAGES = 64  # decoded at most; larger batches repeat them
SEARCH_SECONDS = 3.0  # to find the best batch size of a model, roughly


@dataclass(frozen=True)
class ThroughputRecord:
    """Paired times of queues.

    Attributes:
        base_s: Seconds per image of the plain model, one per round.
        other_s: Seconds per image of the row's model in the same rounds.
        base_batch: The plain model's batch size.
        other_batch: The row's.
    """

    base_s: tuple[float, ...]
    other_s: tuple[float, ...]
    base_batch: int
    other_batch: int


class Throughput(Kind[ThroughputRecord]):
    """Images per second of queued batches, and how much more than the plain model's."""

    name = "throughput"
    record = ThroughputRecord
    exclusive = True
    columns = (
        Column("throughput", heading="throughput", unit="img/s", interval="throughput", dropped=2),
        Column("throughput_lo"),
        Column("throughput_hi"),
        Column("throughput_batch", "Int64", heading="at batch", step=1.0, dropped=4),
        Column(
            "throughput_gain",
            heading="throughput gain",
            unit=TIMES,
            interval="throughput_gain",
            compared=True,
            dropped=1,
        ),
        Column("throughput_gain_lo"),
        Column("throughput_gain_hi"),
    )

    def depends_on(self, conditions: Conditions) -> dict[str, Any]:
        """Everything that changes how fast a model runs here; not the row's batch size, which plays no part."""
        suite = conditions.suite
        return {
            **conditions.method,
            **conditions.machine,
            **({"data": conditions.data} if conditions.adaptive else {}),
            "mode": conditions.mode,
            "threads": conditions.threads,
            "seconds": suite.seconds,
            "batch": suite.throughput_batch,
        }

    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """The search for both batch sizes, and the blocks."""
        search = 0.0 if pace.suite.throughput_batch else 2 * SEARCH_SECONDS
        return len(rows) * (search + pace.suite.seconds)

    def measure_row(self, row: Row, bench: Bench) -> ThroughputRecord:
        """Find both batch sizes with eager models, then measure in the row's mode."""
        from tokbench.measure.modes import forget_compiled, in_mode
        from tokbench.measure.throughput import best_batch, measure_throughput

        forget_compiled()
        plain, model = bench.plain(row), bench.build(row)
        given, mode = bench.suite.throughput_batch, row.cell.mode
        plain_images = partial(_batch, bench.plain_images([row]))
        images = partial(_batch, bench.sample_images([row]))
        plain_batch, batch = (
            given or best_batch(one, of, bench.device) for one, of in ((plain, plain_images), (model, images))
        )
        base = (in_mode(plain, mode, plain_images(plain_batch)), plain_images(plain_batch))
        other = (in_mode(model, mode, images(batch)), images(batch))
        return ThroughputRecord(
            **asdict(measure_throughput(base, other, bench.suite.seconds)), base_batch=plain_batch, other_batch=batch
        )

    def fill(self, row: PlannedRow, plain: PlannedRow | None, results: Results) -> dict[str, Any]:
        """Images per second and the gain, with intervals."""
        record = results.record(self, row)
        if record is None:
            return {}
        time, gain = median_interval(record.other_s), compare_times(record.base_s, record.other_s).speedup
        return {
            "throughput": 1 / time.estimate,
            "throughput_lo": 1 / time.hi,
            "throughput_hi": 1 / time.lo,
            "throughput_batch": record.other_batch,
            "throughput_gain": gain.estimate,
            "throughput_gain_lo": gain.lo,
            "throughput_gain_hi": gain.hi,
        }


def _batch(images: Tensor, size: int) -> Tensor:
    """(size, C, H, W): the images, repeated where they are too few."""
    some = images[:SOURCE_IMAGES]
    return some.repeat(-(-size // len(some)), 1, 1, 1)[:size]
