"""From samples of time to the table's columns."""

from __future__ import annotations

from typing import Any

from tokbench.stats.times import compare_times, floor_of, median_interval, percentile

MUCH_LOAD = 0.1  # of the CPUs, by other processes: intervals widen


def times(record: dict[str, Any], noise: dict[str, Any] | None, batch_size: int) -> dict[str, Any]:
    """The columns about time.

    Args:
        record: A latency record.
        noise: The record of the plain model against itself in the same session.
        batch_size: Images in a timed batch.
    """
    latency = median_interval(record["other_s"])
    floor = noise_floor(noise)
    against = compare_times(record["base_s"], record["other_s"], floor)
    tails = {name: percentile(record["other_s"], q) for name, q in (("p90", 0.9), ("p99", 0.99))}
    return {
        "latency_ms": 1e3 * latency.estimate,
        "latency_ms_lo": 1e3 * latency.lo,
        "latency_ms_hi": 1e3 * latency.hi,
        **{f"latency_ms_{name}": None if tail is None else 1e3 * tail for name, tail in tails.items()},
        "rounds": len(record["other_s"]),
        "images_per_s": batch_size / latency.estimate,
        "speedup": against.speedup.estimate,
        "speedup_lo": against.speedup.lo,
        "speedup_hi": against.speedup.hi,
        "verdict": str(against.verdict),
        "noise_floor": 100 * floor,
        "other_load": record["other_load"],
    }


def noise_floor(noise: dict[str, Any] | None) -> float:
    """How far the plain model differed from itself in a session, as a fraction."""
    blocks = noise["blocks"] if noise else []
    return floor_of([compare_times(block["base_s"], block["other_s"]) for block in blocks])


def time_remarks(record: dict[str, Any], precision: float) -> list[str]:
    """What a reader of the row should know about its times."""
    said = []
    if record["half_width"] > precision:
        said.append(
            f"the suite's time was spent when the speedup was known to {100 * record['half_width']:.1f} %, "
            f"not {100 * precision:g} %"
        )
    if record["other_load"] > MUCH_LOAD:
        said.append(f"other processes had {100 * record['other_load']:.0f} % of the CPUs")
    reasons = sorted({reason for moment in record["gpu"] for reason in moment["throttled"]})
    if reasons:
        said.append(f"the GPU's clocks were held down by {', '.join(reasons)}")
    return said
