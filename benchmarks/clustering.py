"""Token Pooling's K-Means against five libraries', and its K-Medoids against FasterPAM.

    GOMP_SPINCOUNT=30000 python benchmarks/clustering.py     (wants tokbench[bench])

64 images of 196 points in 384 dimensions, 98 clusters, five rounds of Lloyd's algorithm from the same centres with no
early stop, in float32 without TF32. The libraries run in turn, in a new order each round; a library without batches,
or whose batch needs gigabytes, is called for one image after the other. `tokbench` is to be at least 1.3 times as fast
as the best of them with the same objective, which is taken of each one's centres in float64.

K-Medoids is held against FasterPAM (Schubert and Rousseeuw 2021) from the same medoids on the same squared distances:
its objective is to be at most 3 % higher. The real tokens are those that leave DeiT-Ti's blocks on photographs.

Writes results/speed/clustering.txt (on a GPU in results/speed/cuda).
"""

from __future__ import annotations

import random
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
from kept import SPEED, keep
from rich.progress import track
from sklearn.cluster import KMeans
from tokbench.run.sample_images import sample
from torch import Tensor
from torch_kmeans import KMeans as TorchKMeans

from tokbench import Context, DownsampledViT, Downsampler, Schedule, Tokens, gather_rows, kmeans, kmedoids
from tokbench.data.sets import open_images
from tokbench.measure.environment import device_name
from tokbench.stats.times import median_interval
from tokbench.vit.models import load_model

BATCH, N, D, K = 64, 196, 384, 98
ITERATIONS = 5
ROUNDS = 12
TARGET = 1.3
ROUNDING = 1e-5
OURS = "tokbench"

REAL = Path(__file__).parents[2] / "shared" / "real"
MODEL = "deit_tiny_patch16_224"
DEPTHS = (3, 6, 9)
SHARES = (0.5, 0.7)
WORSE = 0.03

PACKAGES = ("flash-kmeans", "fast_pytorch_kmeans", "fastkmeans", "torch-kmeans", "scikit-learn", "kmedoids")

Cluster = Callable[[Tensor, Tensor], Tensor]
"""Points (B, N, D) and the K that are the first centres (B, K) -> centres (B, K, D)."""


def ours(f: Tensor, start: Tensor) -> Tensor:
    return kmeans(f, torch.ones_like(f[..., 0]), start, ITERATIONS)[1]


def our_medoids(f: Tensor, start: Tensor) -> Tensor:
    return kmedoids(f, torch.ones_like(f[..., 0]), start, ITERATIONS)[1]


def flash(f: Tensor, start: Tensor) -> Tensor:
    """Its Triton kernels on a GPU; on a CPU its own fallback in PyTorch."""
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
    """It takes no centres, but draws those of `drawn`."""

    def one(image: int, points: Tensor) -> Tensor:
        settings = {"niter": ITERATIONS, "tol": -1.0, "seed": image, "dtype": torch.float32, "device": f.device}
        model = FastKMeans(f.shape[2], start.shape[1], **settings)
        model.train(points.cpu().numpy())
        return torch.from_numpy(model.centroids)

    return torch.stack([one(image, points) for image, points in enumerate(f)]).to(f.device)


def scikit(f: Tensor, start: Tensor) -> Tensor:
    """It stops by itself once no point changes its cluster."""

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


def medoids_by(algorithm: Callable[..., Any], f: Tensor, start: Tensor) -> Tensor:
    """(B, K) what an algorithm of `kmedoids` chooses on squared distances, image by image."""
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
MEDOIDS: dict[str, Cluster] = {f"{OURS} K-Medoids": our_medoids, "kmedoids FasterPAM": faster_pam}


def drawn(batch: int, n: int, count: int) -> Tensor:
    """(B, K) first centres: those that fastkmeans draws when its seed is the image's number."""
    return torch.stack([torch.randperm(n, generator=torch.Generator().manual_seed(i))[:count] for i in range(batch)])


def objective(f: Tensor, centres: Tensor) -> Tensor:
    """(B) the sum of the squared distances to the nearest centre, in float64."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(f.double(), centres.double(), compute_mode=exact).amin(dim=2).square().sum(dim=1)


def timed(work: Mapping[str, Cluster], f: Tensor, start: Tensor) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Seconds of each one's rounds, and its centres."""
    order = list(work)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    centres = {name: cluster(f, start) for name, cluster in work.items()}  # and warm
    for turn in track(range(ROUNDS), transient=True):
        random.Random(turn).shuffle(order)
        for name in order:
            _finish(f)
            begun = time.perf_counter()
            work[name](f, start)
            _finish(f)
            seconds[name].append(time.perf_counter() - begun)
    return seconds, centres


def _finish(f: Tensor) -> None:
    if f.is_cuda:
        torch.cuda.synchronize()


def race(name: str, f: Tensor, start: Tensor) -> Iterator[str]:
    """The table of one kind of points."""
    seconds, centres = timed({**LLOYD, **MEDOIDS}, f, start)
    reached = {who: objective(f, found).mean().item() for who, found in centres.items()}
    batch, n, dim = f.shape
    yield f"{name}: B {batch}, N {n}, D {dim}, K {start.shape[1]}, {ITERATIONS} rounds, {f.dtype}"
    yield f"{'':22} {'ms':>9} {'times ours':>10} {'95 % interval':>16} {'objective':>12} {'over ours':>10}"
    for who, times in seconds.items():
        ratio = median_interval(np.array(times) / seconds[OURS])
        lloyd = who in LLOYD
        over = reached[who] / reached[OURS if lloyd else f"{OURS} K-Medoids"] - 1
        yield (
            f"{who:22} {1e3 * float(np.median(times)):9.1f} {ratio.estimate:10.2f} "
            f"{f'{ratio.lo:.2f} to {ratio.hi:.2f}':>16} {reached[who]:12.2f} {over:10.1e}"
        )
    best = min(PEERS, key=lambda who: float(np.median(seconds[who])))
    factor = float(np.median(np.array(seconds[best]) / seconds[OURS]))
    furthest = max(abs(reached[who] / reached[OURS] - 1) for who in PEERS)
    met = "met" if factor >= TARGET and furthest <= ROUNDING else "missed"
    yield (
        f"{factor:.2f} times as fast as the best of them, {best}; objectives within {furthest:.0e}. "
        f"At least {TARGET} and {ROUNDING:.0e}: {met}."
    )
    yield ""


class Watch(Downsampler):
    """Keeps what it was given."""

    site = "after_block"
    needs = frozenset({"received"})

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        """Any K tokens."""
        self.patches, self.received = tokens.patches, context.received
        return tokens.select(context.received.topk(keep).indices)


def real_tokens(device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """By where they come from: tokens (B, N, D) that leave a block, and the attention (B, N) that they receive."""
    pretrained = load_model(MODEL, REAL / f"{MODEL}.fp16.safetensors")
    images = sample(pretrained, open_images(REAL / "val"), BATCH).to(device)
    tokens = {}
    for depth in DEPTHS:
        watch = Watch()
        model = DownsampledViT(pretrained.vit.to(device), watch, Schedule.explicit((K,), at=(depth,))).eval()
        with torch.inference_mode():
            model(images)
        tokens[f"DeiT-Ti, block {depth}"] = (watch.patches.float().contiguous(), watch.received)
    return tokens


def medoids(points: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[str]:
    """How far above FasterPAM's objective ours ends, and that of moves within clusters alone."""
    yield f"K-Medoids, {ITERATIONS} rounds: the objective over that of FasterPAM from the same medoids"
    yield f"{'points':18} {'K/N':>4} {'start':>10} {'mean':>8} {'worst image':>12} {'without swaps, to the end':>26}"
    worst = 0.0
    for name, (f, received) in points.items():
        for share in SHARES:
            count = round(share * f.shape[1])
            random_start = drawn(len(f), f.shape[1], count).to(f.device)
            starts = {"attention": received.topk(count).indices, "random": random_start}
            for kind, start in starts.items():
                best = objective(f, faster_pam(f, start))
                over = objective(f, our_medoids(f, start)) / best - 1
                alone = gather_rows(f, medoids_by(peer_kmedoids.alternating, f, start))
                alternating = (objective(f, alone) / best - 1).mean().item()
                worst = max(worst, over.mean().item())
                yield (
                    f"{name:18} {share:4.1f} {kind:>10} {100 * over.mean().item():+6.2f} % "
                    f"{100 * over.max().item():+10.2f} % {100 * alternating:+24.2f} %"
                )
    yield f"At most {100 * WORSE:.0f} % above it in the mean of each line: {'met' if worst <= WORSE else 'missed'}."


def main() -> None:
    """Run both and say whether the targets are met."""
    warnings.filterwarnings("ignore", module="sklearn")  # that it has not converged
    warnings.filterwarnings("ignore", module="kmedoids")  # that given medoids leave nothing to its seed
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(BATCH, N, D, generator=generator).to(device)
    noise = torch.rand(BATCH, N, generator=generator).to(device)
    points = {"gaussian": (gaussian, noise)}
    if REAL.is_dir():
        points |= real_tokens(device)
    lines = [f"On {device_name(device)}; {', '.join(f'{name} {version(name)}' for name in PACKAGES)}."]
    if device.type == "cpu":
        lines.append("flash-kmeans has kernels for a GPU alone; here it runs its own fallback in PyTorch.")
    lines.append("")
    for name in list(points)[:2]:
        lines += race(name, points[name][0], drawn(BATCH, N, K).to(device))
    lines += medoids(points)
    folder = SPEED / "cuda" if device.type == "cuda" else SPEED
    keep(folder / "clustering.txt", lines, ("python", "torch", "tokbench"))


if __name__ == "__main__":
    main()
