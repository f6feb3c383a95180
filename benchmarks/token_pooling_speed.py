"""The time of Token Pooling's clustering over that of the distance matrix, and of the digits model with it.

    GOMP_SPINCOUNT=30000 python benchmarks/token_pooling_speed.py

No clustering from distances is faster than the product that computes them, so that product is the lower bound; the
target is at most four times its time on the digits model's first reduction (32 images of 64 tokens in 48 dimensions, 32
clusters). The programs are timed in turn on a CPU; the median is compared, with the minimum beside it, which is what
remains on a busy machine. The model with Token Pooling (keep 0.5, batch 32) is to be no slower than the plain model.

Writes results/speed/token_pooling_speed.txt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from output import SPEED, write_output

from tokbench import DownsampledViT, Schedule, create, kmeans, kmedoids, kmedoids_with_swaps
from tokbench.embedded.model import load
from tokbench.measure.latency import measure_latency
from tokbench.ops.distances import distances_between
from tokbench.stats.times import compare_times, median_interval

SHAPES = {(32, 64, 32, 48): 200, (64, 196, 98, 384): 15}  # B, N, K, D: rounds
ITERATIONS = 5
TARGET = 4.0
KEEP = 0.5
BATCH = 32
SECONDS, PRECISION = 10.0, 0.005
METHODS = {
    "K-Means": {"algorithm": "kmeans"},
    "K-Medoids": {"algorithm": "kmedoids"},
    "K-Medoids, swaps": {"algorithm": "kmedoids", "refine": "swap"},
}
OPERATORS = {"K-Means": kmeans, "K-Medoids": kmedoids, "K-Medoids, swaps": kmedoids_with_swaps}
PRODUCT = "distances"


def timed(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each program in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(-3, rounds):  # three for warming up
        for name, run in work.items():
            begin = time.perf_counter()
            run()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def operators() -> Iterator[str]:
    """The time of each operator, in milliseconds and over that of the distances."""
    for (batch, n, count, dim), rounds in SHAPES.items():
        generator = torch.Generator().manual_seed(0)
        f = torch.randn(batch, n, dim, generator=generator)
        weight = torch.rand(batch, n, generator=generator) + 0.05
        start = weight.topk(count).indices
        work: dict[str, Callable[[], object]] = {PRODUCT: partial(distances_between, f)}
        work |= {name: partial(cluster, f, weight, start, ITERATIONS) for name, cluster in OPERATORS.items()}
        seconds = timed(work, rounds)
        yield f"B {batch}, N {n}, K {count}, D {dim}, {ITERATIONS} rounds"
        yield f"{'':18} {'median ms':>10} {'least ms':>9} {'/ distances':>12} {'95 % interval':>16}"
        for name, times in seconds.items():
            ratio = median_interval(np.array(times) / seconds[PRODUCT])
            yield (
                f"{name:18} {1e3 * float(np.median(times)):10.3f} {1e3 * min(times):9.3f} {ratio.estimate:12.2f} "
                f"{f'{ratio.lo:.2f} to {ratio.hi:.2f}':>16}"
            )
        yield ""


def models() -> Iterator[str]:
    """The speed of the digits model with Token Pooling over that of the plain model."""
    vit = load()
    images = torch.rand(BATCH, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = DownsampledViT(vit).eval()
    yield f"digits_deit, keep {KEEP} at depths 3, 6 and 9, batch {BATCH}: speed over the plain model's"
    for name, params in METHODS.items():
        model = DownsampledViT(vit, create("token_pooling", **params), Schedule.stages(KEEP)).eval()
        times = measure_latency(plain, model, [images], SECONDS, PRECISION)
        speedup = compare_times(times.base_s, times.other_s).speedup
        met = "met" if speedup.estimate >= 1 else "missed"
        yield f"{name:18} {speedup.estimate:6.2f} {speedup.lo:6.2f} to {speedup.hi:.2f}   at least 1: {met}"


def main() -> None:
    """Time the operators and the models, and print and write the results."""
    with torch.inference_mode():
        lines = [*operators(), *models()]
    lines.append(f"Target for the operators: at most {TARGET:.0f} times the distances at N 64.")
    write_output(SPEED / "token_pooling_speed.txt", lines, ("python", "torch", "timm", "tokbench"))


if __name__ == "__main__":
    main()
