"""Times: what a device can do at most, and what fewer MACs can gain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tokbench.contribute.planned import described
from tokbench.contribute.problem import Name, Problem
from tokbench.kinds import KINDS
from tokbench.kinds.latency import LATENCY, NOISE
from tokbench.results import PlannedRow, Results

HALF = ("bf16", "fp16", "amp-bf16", "amp-fp16")

PEAKS = {
    "B200": (1200.0, 2500.0),
    "GB200": (1250.0, 2500.0),
    "H200": (495.0, 990.0),
    "H100": (495.0, 990.0),
    "GH200": (495.0, 990.0),
    "A100": (156.0, 312.0),
    "A10G": (70.0, 140.0),
    "A10": (63.0, 125.0),
    "L40": (183.0, 363.0),
    "L4": (61.0, 121.0),
    "T4": (9.0, 65.0),
    "V100": (16.5, 130.0),
    "P100": (11.0, 22.0),
    "RTX 5090": (210.0, 420.0),
    "RTX 4090": (166.0, 331.0),
    "RTX 3090": (72.0, 143.0),
    "MI300X": (654.0, 1308.0),
    "MI250X": (96.0, 384.0),
}
"""GPUs' peaks in 10^12 floating-point operations per second, by a part of the name: of float32 with TF32 where the GPU
has it, and of half precision: dense rates, approximate and meant to be rounded up. If a real measurement is above one,
the entry is wrong.
"""

UNKNOWN_GPU = max(PEAKS.values())

# Of a CPU core: two units for fused multiply-adds of 16 numbers (AVX-512), and a tile unit for half precision (AMX). No
# CPU runs at more than 6 GHz for longer than a moment; the clock in the environment may be that of an idle core.
CORE_FLOPS_PER_CYCLE = {"fp32": 64, "half": 2048}
MAX_CLOCK_HZ = 6e9

MOST_BEYOND_MACS = 2.0
"""How many times larger a speedup may be than the ratio of the MACs. Smaller tensors may fit into a cache; the largest
factor among the rows in results/ is 1.15.
"""

MOST_ABOVE_FLOOR = 3.0
"""How many times faster than the fastest run in its session's noise floor the plain model may be beside a row."""

MOST_ABOVE_REFERENCE = 8.0
"""How many times faster than in a reference on a device of the same name the plain model may be. Cloud providers give
the CPUs of several generations one name.
"""


def check_speed(results: Results, references: Sequence[Results]) -> Iterator[Problem]:
    """Check that times are possible.

    Args:
        results: The contributed results.
        references: Other results.
    """
    for row in results.plan.rows:
        record = results.record(LATENCY, row)
        if record is None:
            continue
        plain_s, row_s = (float(np.median(samples)) for samples in (record.base_s, record.other_s))
        wrong = [
            _above_peak(row, row_s / (row.id.batch_size or 1), results),
            _beyond_macs(row, plain_s / row_s, results),
            _unlike_session(record, plain_s, results),
        ]
        if row.is_plain:
            wrong += [_unlike_reference(row, plain_s, results, reference) for reference in references]
        yield from (Problem(Name.IMPOSSIBLE_TIME, f"{described(row)}: {text}") for text in wrong if text)
    for row in results.plan.rows:
        record = results.record(KINDS["throughput"], row)
        text = "" if record is None else _above_peak(row, float(np.median(record.other_s)), results)
        if text:
            yield Problem(Name.IMPOSSIBLE_TIME, f"{described(row)}: throughput: {text}")


def peak_flops(environment: dict[str, Any], dtype: str) -> float:
    """The most floating-point operations per second that a device can do.

    Args:
        environment: Of the results.
        dtype: Of the models.
    """
    half = dtype in HALF or environment["tf32"]["matmul"] not in ("highest", "ieee")
    if environment["device"] == "cpu":
        cores = min(environment["threads"], environment["cpus"])
        return float(cores * MAX_CLOCK_HZ * CORE_FLOPS_PER_CYCLE["half" if half else "fp32"])
    name = environment["device_name"]
    fitting = max((part for part in PEAKS if part in name), key=len, default="")
    single, double_rate = PEAKS.get(fitting, UNKNOWN_GPU)
    return 1e12 * (double_rate if dtype in HALF else single)


def _macs(row: PlannedRow, results: Results) -> int | None:
    """Counted MACs of an image."""
    record = results.record(KINDS["macs"], row)
    return None if record is None else record.total


def _above_peak(row: PlannedRow, image_s: float, results: Results) -> str:
    macs = _macs(row, results)
    if macs is None:
        return ""
    needed, peak = 2 * macs / image_s, peak_flops(results.environment, row.id.dtype)
    if needed <= peak:
        return ""
    return f"{needed / 1e12:.3g} TFLOP/s, and {results.environment['device_name']} can do {peak / 1e12:.3g} at most"


def _beyond_macs(row: PlannedRow, speedup: float, results: Results) -> str:
    plain = results.plan.plain_of(row)
    own, other = _macs(row, results), None if plain is None else _macs(plain, results)
    if own is None or other is None:
        return ""
    most = MOST_BEYOND_MACS * max(other / own, 1.0)
    return "" if speedup <= most else f"a speedup of {speedup:.3g}, and its MACs allow {most:.3g} at most"


def _unlike_session(record: Any, plain_s: float, results: Results) -> str:
    noise = results.read(NOISE, record.session)
    if noise is None:
        return ""
    fastest = min(min(*block.base_s, *block.other_s) for block in noise.blocks)
    if plain_s * MOST_ABOVE_FLOOR >= fastest:
        return ""
    return f"the plain model takes {1e3 * plain_s:.3g} ms, and {1e3 * fastest:.3g} ms at least in the same session"


def _unlike_reference(row: PlannedRow, plain_s: float, results: Results, reference: Results) -> str:
    here, there = results.environment, reference.environment
    if any(here.get(name) != there.get(name) for name in ("device_name", "threads")):
        return ""
    same = next((one for one in reference.plan.rows if one.is_plain and one.id == row.id), None)
    record = None if same is None else reference.record(LATENCY, same)
    if record is None:
        return ""
    other_s = float(np.median(record.base_s))
    if plain_s * MOST_ABOVE_REFERENCE >= other_s:
        return ""
    return f"{1e3 * plain_s:.3g} ms, and {1e3 * other_s:.3g} ms on the same device in {reference.directory}"
