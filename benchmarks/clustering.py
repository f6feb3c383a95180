"""Token Pooling's K-Means compared with five libraries, and its two forms of K-Medoids with those of `kmedoids`.

    GOMP_SPINCOUNT=30000 python benchmarks/clustering.py [DATA WEIGHTS]     (needs tokbench[bench])

64 images of 196 points in 384 dimensions, 98 clusters, five iterations of Lloyd's algorithm from the same centres
without early stopping, in float32 without TF32. The libraries are timed in turn, in a new order each round; a library
without batching, or whose batch needs gigabytes, is called image by image. The target for `tokbench` is to be at least
1.3 times as fast as the fastest library with the same objective, which is computed from the centres in float64.

K-Medoids with swaps is compared with FasterPAM (Schubert and Rousseeuw 2021) from the same medoids on the same squared
distances: the target is an objective at most 3 % higher. Beside it are the published K-Medoids, which alternates, and
the alternation of `kmedoids`, which runs until nothing changes. With DATA (photographs, an image set) and WEIGHTS (of
DeiT-Ti), real tokens are clustered too: those that leave DeiT-Ti's blocks.

Writes results/speed/clustering.txt (on a GPU in results/speed/cuda).
"""

from __future__ import annotations

import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kmedoids as peer_kmedoids
import numpy as np
import torch
from fast_pytorch_kmeans import MultiKMeans
from fastkmeans import FastKMeans
from flash_kmeans import batch_kmeans_Euclid
from flash_kmeans.torch_fallback import batch_kmeans_Euclid_torch_native
from output import SPEED, write_output
from rich.progress import track
from sklearn.cluster import KMeans
from torch import Tensor
from torch_kmeans import KMeans as TorchKMeans

from tokbench import (
    Context,
    DownsampledViT,
    Downsampler,
    Schedule,
    Tokens,
    gather_rows,
    kmeans,
    kmedoids,
    kmedoids_with_swaps,
)
from tokbench.data.sets import open_images
from tokbench.measure.devices import device_name
from tokbench.measure.sample_images import sample_images
from tokbench.stats.times import median_interval
from tokbench.vit.models import load_model

BATCH, N, D, K = 64, 196, 384, 98
ITERATIONS = 5
ROUNDS = 12
TARGET = 1.3
ROUNDING = 1e-5
OURS = "tokbench"

MODEL = "deit_tiny_patch16_224"
DEPTHS = (3, 6, 9)
SHARES = (0.5, 0.7)
MAX_EXCESS = 0.03

PACKAGES = ("flash-kmeans", "fast_pytorch_kmeans", "fastkmeans", "torch-kmeans", "scikit-learn", "kmedoids")

Cluster = Callable[[Tensor, Tensor], Tensor]
"""Points (B, N, D) and the indices (B, K) of the initial centres -> centres (B, K, D)."""


def ours(f: Tensor, start: Tensor) -> Tensor:
    return kmeans(f, torch.ones_like(f[..., 0]), start, ITERATIONS)[1]


def our_medoids(f: Tensor, start: Tensor) -> Tensor:
    return kmedoids(f, torch.ones_like(f[..., 0]), start, ITERATIONS)[1]


def our_swaps(f: Tensor, start: Tensor) -> Tensor:
    return kmedoids_with_swaps(f, torch.ones_like(f[..., 0]), start, ITERATIONS)[1]


def flash(f: Tensor, start: Tensor) -> Tensor:
    """flash-kmeans: its Triton kernels on a GPU, its PyTorch fallback on a CPU."""
    run = batch_kmeans_Euclid if f.is_cuda else batch_kmeans_Euclid_torch_native
    centres: Tensor = run(f, start.shape[1], max_iters=ITERATIONS, tol=0.0, init_centroids=gather_rows(f, start))[1]
    return centres


def multi(f: Tensor, start: Tensor) -> Tensor:
    model = MultiKMeans(start.shape[1], max_iter=ITERATIONS, tol=-1.0)
    model.centroids = gather_rows(f, start)
    model.fit(f)
    centres: Tensor = model.centroids
    return centres


def fast(f: Tensor, start: Tensor) -> Tensor:
    """fastkmeans, which takes no initial centres but draws the same ones as `random_start`."""

    def one(image: int, points: Tensor) -> Tensor:
        settings = {"niter": ITERATIONS, "tol": -1.0, "seed": image, "dtype": torch.float32, "device": f.device}
        model = FastKMeans(f.shape[2], start.shape[1], **settings)
        model.train(points.cpu().numpy())
        return torch.from_numpy(model.centroids)

    return torch.stack([one(image, points) for image, points in enumerate(f)]).to(f.device)


def scikit(f: Tensor, start: Tensor) -> Tensor:
    """scikit-learn, which stops as soon as no point changes its cluster."""

    def one(points: Any, centres: Any) -> Any:
        settings = {"n_init": 1, "algorithm": "lloyd", "tol": 0, "max_iter": ITERATIONS}
        return KMeans(len(centres), init=centres, **settings).fit(points).cluster_centers_

    first = gather_rows(f, start).cpu().numpy()
    found = [one(points, centres) for points, centres in zip(f.cpu().numpy(), first, strict=True)]
    return torch.from_numpy(np.stack(found)).to(f.device)


def torch_kmeans(f: Tensor, start: Tensor) -> Tensor:
    model = TorchKMeans(n_clusters=start.shape[1], num_init=1, max_iter=ITERATIONS, tol=0.0, verbose=False)
    first = gather_rows(f, start)
    return torch.cat([model(f[i, None], centers=first[i, None]).centers for i in range(len(f))])


def faster_pam(f: Tensor, start: Tensor) -> Tensor:
    return gather_rows(f, medoids_by(peer_kmedoids.fasterpam, f, start))


def alternating(f: Tensor, start: Tensor) -> Tensor:
    return gather_rows(f, medoids_by(peer_kmedoids.alternating, f, start))


def medoids_by(algorithm: Callable[..., Any], f: Tensor, start: Tensor) -> Tensor:
    """(B, K) the medoids found by an algorithm of `kmedoids` on squared distances, image by image."""
    distances = torch.cdist(f, f).square().cpu().numpy()
    first = start.cpu().numpy().astype(np.uint64)
    found = [algorithm(d, medoids).medoids for d, medoids in zip(distances, first, strict=True)]
    return torch.from_numpy(np.stack(found).astype(np.int64)).to(f.device)


PEERS: dict[str, Cluster] = {
    "flash-kmeans": flash,
    "fast_pytorch_kmeans": multi,
    "fastkmeans": fast,
    "scikit-learn": scikit,
    "torch-kmeans": torch_kmeans,
}
LLOYD: dict[str, Cluster] = {OURS: ours, **PEERS}
ALTERNATION, SWAPS = f"{OURS} K-Medoids", f"{OURS} swaps"
PAIRS = {"kmedoids alternating": ALTERNATION, "kmedoids FasterPAM": SWAPS}  # a library's algorithm: ours
MEDOIDS: dict[str, Cluster] = {
    ALTERNATION: our_medoids,
    "kmedoids alternating": alternating,
    SWAPS: our_swaps,
    "kmedoids FasterPAM": faster_pam,
}


def random_start(batch: int, n: int, count: int) -> Tensor:
    """(B, K) initial centres: those that fastkmeans draws if its seed is the index of the image."""
    return torch.stack([torch.randperm(n, generator=torch.Generator().manual_seed(i))[:count] for i in range(batch)])


def objective(f: Tensor, centres: Tensor) -> Tensor:
    """(B) the sum of the squared distances to the nearest centre, in float64."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(f.double(), centres.double(), compute_mode=exact).amin(dim=2).square().sum(dim=1)


def timed(work: Mapping[str, Cluster], f: Tensor, start: Tensor) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """The seconds of each algorithm's rounds, and its centres."""
    order = list(work)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    centres = {name: cluster(f, start) for name, cluster in work.items()}  # also the warm-up
    for turn in track(range(ROUNDS), transient=True):
        random.Random(turn).shuffle(order)
        for name in order:
            _synchronize(f)
            begin = time.perf_counter()
            work[name](f, start)
            _synchronize(f)
            seconds[name].append(time.perf_counter() - begin)
    return seconds, centres


def _synchronize(f: Tensor) -> None:
    if f.is_cuda:
        torch.cuda.synchronize()


def race(name: str, f: Tensor, start: Tensor) -> Iterator[str]:
    """The table for one kind of points."""
    seconds, centres = timed({**LLOYD, **MEDOIDS}, f, start)
    objectives = {who: objective(f, found).mean().item() for who, found in centres.items()}
    batch, n, dim = f.shape
    yield f"{name}: B {batch}, N {n}, D {dim}, K {start.shape[1]}, {ITERATIONS} iterations, {f.dtype}"
    yield f"{'':22} {'ms':>9} {'/ ours':>10} {'95 % interval':>16} {'objective':>12} {'excess':>10}"
    for who, times in seconds.items():
        ratio = median_interval(np.array(times) / seconds[OURS])
        excess = objectives[who] / objectives[OURS if who in LLOYD else PAIRS.get(who, who)] - 1
        yield (
            f"{who:22} {1e3 * float(np.median(times)):9.1f} {ratio.estimate:10.2f} "
            f"{f'{ratio.lo:.2f} to {ratio.hi:.2f}':>16} {objectives[who]:12.2f} {excess:10.1e}"
        )
    fastest = min(PEERS, key=lambda who: float(np.median(seconds[who])))
    factor = float(np.median(np.array(seconds[fastest]) / seconds[OURS]))
    difference = max(abs(objectives[who] / objectives[OURS] - 1) for who in PEERS)
    met = "met" if factor >= TARGET and difference <= ROUNDING else "missed"
    yield (
        f"{factor:.2f} times as fast as the fastest library, {fastest}; objectives within {difference:.0e}. "
        f"Target: at least {TARGET} and at most {ROUNDING:.0e}, {met}."
    )
    yield ""


class Recorder(Downsampler):
    """Records the tokens and the attention that it gets."""

    site = "after_block"
    needs = frozenset({"received"})

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        """Select K tokens."""
        self.patches, self.received = tokens.patches, context.received
        return tokens.select(context.received.topk(keep).indices)


def real_tokens(data: str, weights: str, device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """The tokens (B, N, D) that leave a block, and the attention (B, N) that they receive, by block."""
    pretrained = load_model(MODEL, Path(weights))
    images = sample_images(pretrained.vit, open_images(data), BATCH).to(device)
    tokens = {}
    for depth in DEPTHS:
        recorder = Recorder()
        model = DownsampledViT(pretrained.vit.to(device), recorder, Schedule.explicit((K,), at=(depth,))).eval()
        with torch.inference_mode():
            model(images)
        tokens[f"DeiT-Ti, block {depth}"] = (recorder.patches.float().contiguous(), recorder.received)
    return tokens


def medoids(points: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[str]:
    """The excess of the objectives over FasterPAM's: ours with swaps, ours as published, and `kmedoids` alternating."""
    yield f"K-Medoids, {ITERATIONS} iterations: excess of the objective over FasterPAM's from the same medoids"
    yield f"{'points':18} {'K/N':>4} {'start':>10} {'swaps':>8} {'worst image':>12} {'published':>11} {'converged':>11}"
    highest = 0.0
    for name, (f, received) in points.items():
        for share in SHARES:
            count = round(share * f.shape[1])
            starts = {
                "attention": received.topk(count).indices,
                "random": random_start(len(f), f.shape[1], count).to(f.device),
            }
            for kind, start in starts.items():
                best = objective(f, faster_pam(f, start))
                swaps, published, converged = (
                    100 * (objective(f, cluster(f, start)) / best - 1)
                    for cluster in (our_swaps, our_medoids, alternating)
                )
                highest = max(highest, swaps.mean().item() / 100)
                yield (
                    f"{name:18} {share:4.1f} {kind:>10} {swaps.mean().item():+6.2f} % {swaps.max().item():+10.2f} % "
                    f"{published.mean().item():+9.2f} % {converged.mean().item():+9.2f} %"
                )
    met = "met" if highest <= MAX_EXCESS else "missed"
    yield f"Target with swaps: at most {100 * MAX_EXCESS:.0f} % in the mean of each line, {met}."


def main(data: str | None = None, weights: str | None = None) -> None:
    """Run both comparisons, and print and write the results.

    Args:
        data: An image set of photographs; None clusters random points only.
        weights: The weights of DeiT-Ti; given together with `data`.
    """
    warnings.filterwarnings("ignore", module="sklearn")  # the warning that it has not converged
    warnings.filterwarnings("ignore", module="kmedoids")  # the warning that the seed is unused with given medoids
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(BATCH, N, D, generator=generator).to(device)
    noise = torch.rand(BATCH, N, generator=generator).to(device)
    points = {"gaussian": (gaussian, noise)}
    if data is not None and weights is not None:
        points |= real_tokens(data, weights, device)
    lines = [f"On {device_name(device)}; {', '.join(f'{name} {version(name)}' for name in PACKAGES)}."]
    if device.type == "cpu":
        lines.append("flash-kmeans has kernels only for GPUs; on a CPU it runs its PyTorch fallback.")
    lines.append("")
    for name in list(points)[:2]:
        lines += race(name, points[name][0], random_start(BATCH, N, K).to(device))
    lines += medoids(points)
    folder = SPEED / "cuda" if device.type == "cuda" else SPEED
    write_output(folder / "clustering.txt", lines, ("python", "torch", "tokbench"))


if __name__ == "__main__":
    main(*sys.argv[1:])
