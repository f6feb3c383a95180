"""From samples of time to the table's columns."""

from __future__ import annotations

from typing import Any

from tokbench.stats import compare_times, floor_of, median_interval


def times(record: dict[str, Any] | None, plain: dict[str, Any] | None, batch_size: int) -> dict[str, Any]:
    if record is None:
        return {}
    latency = median_interval(record["method_s"])
    # The plain row is the model against itself: what it differs by is this session's noise.
    floor = floor_of([compare_times(plain["plain_s"], plain["method_s"])]) if plain else 0.0
    against = compare_times(record["plain_s"], record["method_s"], floor)
    return {
        "latency_ms": 1e3 * latency.estimate,
        "latency_ms_lo": 1e3 * latency.lo,
        "latency_ms_hi": 1e3 * latency.hi,
        "images_per_s": batch_size / latency.estimate,
        "speedup": against.speedup.estimate,
        "speedup_lo": against.speedup.lo,
        "speedup_hi": against.speedup.hi,
        "verdict": str(against.verdict),
        "peak_mib": record["peak_mib"],
    }
