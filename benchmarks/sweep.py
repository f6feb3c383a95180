"""What a sweep costs against its cells one by one: decoding and the first blocks once for all, or once for each.

    python benchmarks/sweep.py DATA WEIGHTS [MODEL]

Four methods at three keeps, at blocks 3, 6 and 9: the accuracy pass over all twelve, and twelve passes over one each,
in one process and in turn (sweep, twelve, twelve, sweep). Loading, planning and the plain model are in neither. The
twelve are also timed as a sweep that shares no blocks, which tells the two savings apart, and as a sweep that finds
its images in a cache. Every image must be answered alike in all of them.

Writes results/speed/sweep.txt.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from kept import SPEED, keep
from speed import Answers, accuracy_plan, answer

from tokbench.measure.environment import describe
from tokbench.names import PLAIN

METHODS, KEEPS = ("token_pooling", "tome", "evit", "dpc_knn"), (0.9, 0.7, 0.5)
WANTED = {"cpu": 1.6, "cuda": 5.0}
LEAST_MEMORY = 1  # MiB: no batch's tokens fit


def main(data: str, weights: str, model: str = "deit_tiny_patch16_224") -> None:
    """Measure and tell.

    Args:
        data: An image set.
        weights: The model's.
        model: A name that timm knows.
    """
    prepared = accuracy_plan(data, weights, model, METHODS, KEEPS)
    rows = [row for row in prepared.rows if row.cell.variant.method != PLAIN]
    singles: list[float] = []
    sweeps: list[float] = []
    said: list[Answers] = []
    with tempfile.TemporaryDirectory() as folder:
        unshared = replace(prepared, suite=prepared.suite.model_copy(update={"memory": LEAST_MEMORY}))
        cached = replace(prepared, suite=prepared.suite.model_copy(update={"cache": Path(folder)}))
        answer(rows[:1], prepared)  # warms the disk's cache and the processor for whoever is first
        for turn in ("sweep", "singles", "singles", "sweep"):
            passes = [rows] if turn == "sweep" else [[row] for row in rows]
            timed = [answer(part, prepared) for part in passes]
            (sweeps if turn == "sweep" else singles).append(sum(seconds for seconds, _ in timed))
            said.append({key: text for _, answers in timed for key, text in answers.items()})
        decoding_shared, *rest = answer(rows, unshared)
        said += rest
        answer(rows[:1], cached)
        found, *rest = answer(rows, cached)
        said += rest
    alike = all(answers == said[0] for answers in said)
    sweep, single = fmean(sweeps), fmean(singles)
    wanted = WANTED[prepared.device.type]
    images = len(prepared.images or ())
    keep(
        SPEED / "sweep.txt",
        (
            f"{model}, {len(rows)} cells ({', '.join(METHODS)} x keep {', '.join(map(str, KEEPS))} at 3-6-9), "
            f"{images} images, batches of {prepared.suite.accuracy_batch}, {prepared.suite.workers} workers, "
            f"{prepared.suite.dtype}, {describe(prepared.device)['device_name']}",
            f"twelve passes over one cell each: {_times(singles)}",
            f"one pass over all twelve:         {_times(sweeps)}",
            f"  {single / sweep:.2f} times as fast (wanted: {wanted}): "
            + ("met" if single / sweep >= wanted else "NOT met"),
            f"  by decoding once, blocks not shared: {decoding_shared:.1f} s, {single / decoding_shared:.2f} times",
            f"  by sharing blocks besides: {decoding_shared / sweep:.2f} times",
            f"one pass that finds its images in a cache: {found:.1f} s, {single / found:.2f} times",
            "answers of all cells and images: " + ("identical in all passes" if alike else "NOT identical"),
        ),
        ("python", "torch", "timm", "pillow", "tokbench"),
    )
    if not alike:
        sys.exit(1)


def _times(seconds: Sequence[float]) -> str:
    return " and ".join(f"{one:.1f} s" for one in seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
