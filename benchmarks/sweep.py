"""The cost of a sweep compared with its cells one by one: decoding and the first blocks are shared, or done per cell.

    python benchmarks/sweep.py DATA WEIGHTS [MODEL]

Four methods at three keeps, at blocks 3, 6 and 9: one accuracy pass over all twelve cells against twelve passes over
one cell each, in one process and in alternating order (sweep, twelve, twelve, sweep). Loading, planning and the plain
model are not timed. The twelve are also timed as a sweep that shares decoding but no blocks, to separate the two
savings, and as a sweep with a filled image cache. The predictions for all images must be identical in all of them.

Writes results/speed/sweep.txt.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from output import SPEED, write_output
from speed import Outcomes, accuracy_plan, time_accuracy_pass

from tokbench.measure.environment import describe
from tokbench.names import PLAIN

METHODS, KEEPS = ("token_pooling", "tome", "evit", "dpc_knn"), (0.9, 0.7, 0.5)
TARGET = {"cpu": 1.6, "cuda": 5.0}
NO_SHARING = 1  # MiB of memory for shared blocks: too little for the tokens of any batch


def main(data: str, weights: str, model: str = "deit_tiny_patch16_224") -> None:
    """Measure, and print and write the results.

    Args:
        data: An image set.
        weights: The weights of the model.
        model: The name of a timm model.
    """
    prepared = accuracy_plan(data, weights, model, METHODS, KEEPS)
    rows = [row for row in prepared.rows if row.cell.variant.method != PLAIN]
    singles: list[float] = []
    sweeps: list[float] = []
    outcomes: list[Outcomes] = []
    with tempfile.TemporaryDirectory() as folder:
        unshared = replace(prepared, suite=prepared.suite.model_copy(update={"memory": NO_SHARING}))
        cached = replace(prepared, suite=prepared.suite.model_copy(update={"cache": Path(folder)}))
        time_accuracy_pass(rows[:1], prepared)  # warms up the disk cache and the processor
        for turn in ("sweep", "singles", "singles", "sweep"):
            passes = [rows] if turn == "sweep" else [[row] for row in rows]
            timed = [time_accuracy_pass(part, prepared) for part in passes]
            (sweeps if turn == "sweep" else singles).append(sum(seconds for seconds, _ in timed))
            outcomes.append({key: text for _, of_pass in timed for key, text in of_pass.items()})
        only_decoding_shared, *rest = time_accuracy_pass(rows, unshared)
        outcomes += rest
        time_accuracy_pass(rows[:1], cached)  # fills the cache
        from_cache, *rest = time_accuracy_pass(rows, cached)
        outcomes += rest
    identical = all(of_run == outcomes[0] for of_run in outcomes)
    sweep, single = fmean(sweeps), fmean(singles)
    target = TARGET[prepared.device.type]
    images = len(prepared.images or ())
    write_output(
        SPEED / "sweep.txt",
        (
            f"{model}, {len(rows)} cells ({', '.join(METHODS)} x keep {', '.join(map(str, KEEPS))} at 3-6-9), "
            f"{images} images, batches of {prepared.suite.accuracy_batch}, {prepared.suite.workers} workers, "
            f"{prepared.suite.dtype}, {describe(prepared.device)['device_name']}",
            f"twelve passes over one cell each: {_times(singles)}",
            f"one pass over all twelve:         {_times(sweeps)}",
            f"  {single / sweep:.2f} times as fast (target: {target}): "
            + ("met" if single / sweep >= target else "NOT met"),
            f"  by sharing only decoding: {only_decoding_shared:.1f} s, {single / only_decoding_shared:.2f} times",
            f"  by also sharing blocks: {only_decoding_shared / sweep:.2f} times",
            f"one pass with a filled image cache: {from_cache:.1f} s, {single / from_cache:.2f} times",
            "predictions of all cells and images: " + ("identical in all passes" if identical else "NOT identical"),
        ),
        ("python", "torch", "timm", "pillow", "tokbench"),
    )
    if not identical:
        sys.exit(1)


def _times(seconds: Sequence[float]) -> str:
    return " and ".join(f"{one:.1f} s" for one in seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
