"""Token Pooling's K-Means against flash-kmeans, from the same centres: times, and objectives in float64.

    python benchmarks/gpu/kmeans.py DEVICE     (needs flash-kmeans)

Five iterations of Lloyd's algorithm without early stopping, in float32. `benchmarks/clustering.py` compares with more
libraries. On a CPU flash-kmeans runs its fallback in PyTorch.
"""

from __future__ import annotations

import sys

import torch
from flash_kmeans import batch_kmeans_Euclid
from flash_kmeans.torch_fallback import batch_kmeans_Euclid_torch_native
from torch import Tensor

from tokbench import gather_rows, kmeans
from tokbench.measure.devices import device_name, resolve_device
from tokbench.measure.latency import measure_latency
from tokbench.stats.times import compare_times

ITERATIONS = 5
SECONDS, PRECISION = 1.0, 0.02
SHAPES = {  # B, N, D, K
    "cuda": ((256, 196, 192, 137), (256, 196, 384, 98), (64, 196, 384, 98), (1, 196, 384, 98), (64, 576, 768, 288)),
    "cpu": ((8, 196, 192, 98),),
}


def objective(f: Tensor, centres: Tensor) -> float:
    """The mean over images of the sum of squared distances to the nearest centre."""
    exact = "donot_use_mm_for_euclid_dist"
    return float(torch.cdist(f.double(), centres.double(), compute_mode=exact).amin(dim=2).square().sum(dim=1).mean())


def main(name: str) -> None:
    """Compare on random points, and print the table."""
    device = resolve_device(name)
    peer = batch_kmeans_Euclid if device.type == "cuda" else batch_kmeans_Euclid_torch_native
    print(f"On {device_name(device)}, {ITERATIONS} iterations; objective: the relative difference of tokbench's.")
    print(f"{'B':>4} {'N':>4} {'D':>4} {'K':>4} {'times as fast':>14}  {'95 % interval':15} {'objective':>9}")
    for batch, n, dim, count in SHAPES["cpu" if device.type == "cpu" else "cuda"]:
        generator = torch.Generator().manual_seed(0)
        f = torch.randn(batch, n, dim, generator=generator).to(device)
        start = torch.stack([torch.randperm(n, generator=generator)[:count] for _ in range(batch)]).to(device)
        weights = torch.ones_like(f[..., 0])

        def ours(f: Tensor, start: Tensor = start, weights: Tensor = weights) -> Tensor:
            return kmeans(f, weights, start, ITERATIONS)[1]

        def theirs(f: Tensor, start: Tensor = start) -> Tensor:
            settings = {"max_iters": ITERATIONS, "tol": 0.0, "init_centroids": gather_rows(f, start)}
            centres: Tensor = peer(f, start.shape[1], **settings)[1]
            return centres

        timed = measure_latency(theirs, ours, [f], SECONDS, PRECISION)
        ratio = compare_times(timed.base_s, timed.other_s).speedup
        interval = f"{ratio.lo:.2f} to {ratio.hi:.2f}"
        apart = objective(f, ours(f)) / objective(f, theirs(f)) - 1
        line = f"{batch:4} {n:4} {dim:4} {count:4} {ratio.estimate:14.2f}  {interval:15} {apart:+9.0e}"
        print(line, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
