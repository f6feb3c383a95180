"""Clustering against Lloyd's algorithm written out in float64, scikit-learn, and its own objective."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor

from tokbench import farthest_first, kmeans, kmedoids, kmedoids_with_swaps, nearest_members

DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
ALGORITHMS = pytest.mark.parametrize("cluster", [kmeans, kmedoids, kmedoids_with_swaps])

Cluster = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]


def cloud(batch: int, n: int, dim: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Points around a third as many centres, and weights."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.randn(batch, -(-n // 3), dim, generator=generator, dtype=dtype)
    noise = torch.randn(batch, n, dim, generator=generator, dtype=dtype)
    points = middles.repeat(1, 3, 1)[:, :n] + 0.5 * noise
    return points, torch.rand(batch, n, generator=generator, dtype=dtype) + 0.1


def starts(batch: int, n: int, count: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, n, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)[:, :count]


def squared(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.square(a[:, None] - b).sum(axis=2)


def objective(f: Tensor, weight: Tensor, centres: Tensor) -> Tensor:
    """(B) Σ_i w_i min_k |f_i - c_k|², in float64."""
    distance = (f.double()[:, :, None] - centres.double()[:, None]).square().sum(dim=3)
    return (weight.double() * distance.amin(dim=2)).sum(dim=1)


def lloyd(f: Tensor, weight: Tensor, start: Tensor, iterations: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One image's clusters and means; no cluster may be empty."""
    points, w = f.double().numpy(), weight.double().numpy()
    centres = points[start]
    for _ in range(iterations):
        owner = squared(points, centres).argmin(axis=1)
        member = (owner == np.arange(len(centres))[:, None]) * w
        assert member.any(axis=1).all()
        centres = member @ points / member.sum(axis=1, keepdims=True)
    return owner, centres


# K-Means


@DEVICES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [3, 20, 45])
def test_kmeans_equals_lloyds_algorithm(count: int, dtype: torch.dtype, device: str) -> None:
    f, weight = cloud(4, 60, 32, count, dtype)
    start = starts(4, 60, count)
    for iterations in (1, 2, 6):
        found = kmeans(f.to(device), weight.to(device), start.to(device), iterations)
        owner, centres = (result.cpu() for result in found)
        for image in range(4):
            owner_there, centres_there = lloyd(f[image], weight[image], start[image], iterations)
            assert owner[image].tolist() == owner_there.tolist()
            assert np.allclose(centres[image].numpy(), centres_there, atol=1e-12 if dtype == torch.float64 else 2e-6)


def test_kmeans_equals_scikit_learn_in_float32_far_from_the_origin() -> None:
    f, weight = cloud(1, 196, 64, 5)
    f, start = f + 100, starts(1, 196, 98)
    peer = KMeans(98, init=(f[0, start[0]] - 100).numpy(), n_init=1, algorithm="lloyd", tol=0, max_iter=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about stopping before convergence
        peer.fit((f[0] - 100).numpy(), sample_weight=weight[0].numpy())
    _, centres = kmeans(f, weight, start, 5)
    theirs = torch.from_numpy(peer.cluster_centers_)[None] + 100
    assert objective(f, weight, centres).item() == pytest.approx(objective(f, weight, theirs).item(), rel=1e-6)


@ALGORITHMS
def test_a_point_of_weight_three_equals_three_points(cluster: Cluster) -> None:
    f, _ = cloud(1, 20, 4, 0, torch.float64)
    times = torch.arange(20) % 3 + 1
    start = starts(1, 20, 6)
    repeated = f[0].repeat_interleave(times, dim=0)[None]
    first = times.cumsum(dim=0) - times
    _, weighted = cluster(f, times[None].double(), start, 4)
    _, counted = cluster(repeated, torch.ones(1, len(repeated[0])), first[start], 4)
    assert objective(f, times[None], weighted) == pytest.approx(objective(f, times[None], counted), rel=1e-9)


# K-Medoids


@DEVICES
@pytest.mark.parametrize("cluster", [kmedoids, kmedoids_with_swaps])
def test_medoids_are_members_and_every_point_is_with_the_nearest_one(cluster: Cluster, device: str) -> None:
    f, weight = cloud(3, 50, 6, 2)
    owner, centres = cluster(f.to(device), weight.to(device), starts(3, 50, 25).to(device), 5)
    owner, centres = owner.cpu(), centres.cpu()
    distance = (f.double()[:, :, None] - centres.double()[:, None]).square().sum(dim=3)
    assert torch.equal(distance.argmin(dim=2), owner)
    assert ((distance == 0).sum(dim=1) == 1).all()
    assert (distance.gather(2, owner[..., None])[..., 0] == 0).sum() == 3 * 25


# All three


@ALGORITHMS
@pytest.mark.parametrize("count", [1, 2, 30, 59, 60])
def test_the_objective_never_increases(cluster: Cluster, count: int) -> None:
    f, weight = cloud(4, 60, 8, 7)
    start = starts(4, 60, count)
    reached = [objective(f, weight, f.gather(1, start[..., None].expand(-1, -1, 8)))]
    for iterations in range(1, 9):
        owner, centres = cluster(f, weight, start, iterations)
        assert all(set(clusters.tolist()) == set(range(count)) for clusters in owner)
        reached.append(objective(f, weight, centres))
        assert (reached[-1] <= reached[-2] * (1 + 1e-6)).all()


@ALGORITHMS
def test_one_cluster_and_as_many_clusters_as_points(cluster: Cluster) -> None:
    f, weight = cloud(2, 15, 3, 1, torch.float64)
    owner, centres = cluster(f, weight, starts(2, 15, 1), 4)
    assert not owner.any()
    mean = (weight[..., None] * f).sum(dim=1) / weight.sum(dim=1)[:, None]
    distance = (f - mean[:, None]).square().sum(dim=2)
    medoid = f[torch.arange(2), distance.argmin(dim=1)]  # the point nearest to the mean has the lowest cost
    assert torch.allclose(centres[:, 0], mean if cluster is kmeans else medoid)
    start = starts(2, 15, 15)
    owner, centres = cluster(f, weight, start, 4)
    assert torch.equal(owner, start.argsort(dim=1))
    assert torch.allclose(centres, f.gather(1, start[..., None].expand(-1, -1, 3)))


@ALGORITHMS
def test_no_cluster_is_empty_for_copies_of_few_points(cluster: Cluster) -> None:
    f = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0)).repeat(2, 5, 1)
    for count in (3, 4, 9, 19):
        owner, centres = cluster(f, torch.ones(2, 20), starts(2, 20, count), 5)
        assert all(set(clusters.tolist()) == set(range(count)) for clusters in owner)
        if count >= 9:
            assert objective(f, torch.ones(2, 20), centres).max() < 1e-9


@ALGORITHMS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(cluster: Cluster, dtype: torch.dtype) -> None:
    f, weight = (values.to(dtype) for values in cloud(2, 40, 16, 4))
    start = starts(2, 40, 20)
    owner, centres = cluster(f, weight, start, 5)
    owner_there, centres_there = cluster(f.float(), weight.float(), start, 5)
    assert torch.equal(owner, owner_there)
    assert torch.equal(centres.float(), centres_there)


@DEVICES
@ALGORITHMS
def test_images_are_independent_and_results_are_reproducible(cluster: Cluster, device: str) -> None:
    f, weight = (values.to(device) for values in cloud(5, 40, 12, 9))
    start = starts(5, 40, 16).to(device)
    owner, centres = cluster(f, weight, start, 5)
    again = cluster(f, weight, start, 5)
    assert torch.equal(owner, again[0])
    assert torch.equal(centres, again[1])
    for image in range(5):
        alone, centres_alone = cluster(f[image, None], weight[image, None], start[image, None], 5)
        assert torch.equal(alone[0], owner[image])
        assert torch.allclose(centres_alone[0], centres[image], atol=1e-6)


@pytest.mark.parametrize(
    "work",
    [
        lambda f, w, start: kmeans(f, w, start[:, :8], 3),
        lambda f, w, start: kmedoids(f, w, start[:, :8], 3),
        lambda f, w, start: kmedoids_with_swaps(f, w, start[:, :8], 3),
        lambda f, w, start: farthest_first(f, 5),
        lambda f, w, start: farthest_first(f, 5, first="isolated"),
        lambda f, w, start: nearest_members(f, start % 8, f[:, :8]),
    ],
    ids=["kmeans", "kmedoids", "kmedoids_with_swaps", "farthest_first", "farthest_first_isolated", "nearest_members"],
)
def test_it_compiles_as_one_graph(work: Callable[[Tensor, Tensor, Tensor], object]) -> None:
    f, weight = cloud(2, 24, 4, 0)
    start = starts(2, 24, 24)
    torch.compiler.reset()
    compiled = torch.compile(work, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(f, weight, start), work(f, weight, start), rtol=0, atol=0)


# Starts and members


def test_farthest_first_starts_nearest_to_the_mean() -> None:
    f = torch.tensor([[[0.0], [1.0], [2.0], [3.5], [10.0]]]) + torch.tensor([-40.0, 0.0, 500.0])[:, None, None]
    assert farthest_first(f, 4).tolist() == [[3, 4, 0, 2]] * 3


def test_farthest_first_can_start_farthest_from_the_nearest_neighbour() -> None:
    f = torch.tensor([[[0.0], [1.0], [-5.0], [10.0], [6.0]]]) + torch.tensor([-40.0, 0.0, 500.0])[:, None, None]
    assert farthest_first(f, 4, first="isolated").tolist() == [[2, 3, 1, 4]] * 3  # gaps to a neighbour: 1, 1, 5, 4, 4
    assert farthest_first(f[:, :1], 1, first="isolated").tolist() == [[0]] * 3


def test_the_nearest_member_is_in_the_cluster_and_the_first_of_equal_ones() -> None:
    f = torch.tensor([[[0.0], [4.0], [6.0], [5.0], [1.0]]])
    owner = torch.tensor([[0, 1, 1, 0, 0]])
    assert nearest_members(f, owner, torch.tensor([[[4.1], [5.0]]])).tolist() == [[3, 1]]


def test_the_nearest_member_is_computed_in_float32() -> None:
    f = torch.tensor([[[10.0, 8.0], [10.0, 7.9375], [10.0, 8.125]]], dtype=torch.bfloat16)
    centre = torch.tensor([[[0.0, 8.0]]], dtype=torch.bfloat16)  # in bfloat16 all three are 100 away
    assert nearest_members(f.flip(1), torch.zeros(1, 3, dtype=torch.int64), centre).tolist() == [[2]]
