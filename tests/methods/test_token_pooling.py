"""Token Pooling against plain loops of its formulas and scikit-learn's K-Means."""

import math
import warnings

import pytest
import torch
from pooled_points import cloud, objective, pool
from sklearn.cluster import KMeans
from torch import Tensor

from tokbench import create, kmedoids_with_swaps
from tokbench.errors import UserError


def gap(a: list[float], b: list[float]) -> float:
    return math.fsum((s - t) ** 2 for s, t in zip(a, b, strict=True))


def nearest(point: list[float], centres: list[list[float]]) -> int:
    return min(range(len(centres)), key=lambda k: gap(point, centres[k]))


def mean_of(points: list[list[float]], weight: list[float], members: list[int]) -> list[float]:
    mass = math.fsum(weight[i] for i in members)
    return [math.fsum(weight[i] * points[i][d] for i in members) / mass for d in range(len(points[0]))]


def starts(points: list[list[float]], received: list[float], keep: int, init: str) -> list[int]:
    every = range(len(points))
    if init == "scores":
        return sorted(every, key=lambda i: -received[i])[:keep]
    middle = mean_of(points, [1.0] * len(points), list(every))
    chosen = [min(every, key=lambda i: gap(points[i], middle))]
    while len(chosen) < keep:
        left = [i for i in every if i not in chosen]
        chosen.append(max(left, key=lambda i: min(gap(points[i], points[j]) for j in chosen)))
    return chosen


def lloyd(points, weight, start, iterations) -> tuple[list[int], list[list[float]], bool]:
    """Clusters, their means, and whether no cluster was ever empty."""
    centres = [points[i] for i in start]
    for _ in range(iterations):
        owner = [nearest(point, centres) for point in points]
        groups = [[i for i, k in enumerate(owner) if k == cluster] for cluster in range(len(start))]
        if not all(groups):
            return owner, centres, False
        centres = [mean_of(points, weight, group) for group in groups]
    return owner, centres, True


def medoids_of(points, weight, start, iterations) -> tuple[list[int], list[int]]:
    """Clusters and the indices of their medoids, by the published alternation."""
    every = range(len(points))
    distance = [[gap(a, b) for b in points] for a in points]

    def assigned(medoids: list[int]) -> list[int]:
        """A medoid is in its own cluster, every other token in the first of the nearest ones."""
        return [medoids.index(min(medoids, key=lambda j, i=i: (i != j, distance[i][j]))) for i in every]

    medoids = list(start)
    for _ in range(iterations):
        owner = assigned(medoids)
        for k in range(len(medoids)):
            group = [i for i in every if owner[i] == k]
            medoids[k] = min(group, key=lambda j, group=group: math.fsum(weight[i] * distance[i][j] for i in group))
    return assigned(medoids), medoids


@pytest.mark.parametrize("output", ["mean", "medoid"])
@pytest.mark.parametrize("init", ["scores", "farthest"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("algorithm", ["kmeans", "kmedoids"])
def test_the_tokens_match_the_formulas(algorithm: str, weighted: bool, init: str, output: str):
    compared = 0
    for seed in range(24):
        n, keep, iterations = 7 + seed % 5, 2 + seed % 4, 1 + seed % 3
        f, received = cloud(n, 3, seed)
        points, scores = f.tolist(), received.tolist()
        weight = scores if weighted else [1.0] * n
        start = starts(points, scores, keep, init)
        if algorithm == "kmeans":
            owner, centres, full = lloyd(points, weight, start, iterations)
            if not full:
                continue
        else:
            owner, medoids = medoids_of(points, weight, start, iterations)
        groups = [[i for i, k in enumerate(owner) if k == cluster] for cluster in range(keep)]
        after = pool(
            f, received, keep, algorithm=algorithm, weighted=weighted, init=init, output=output, iterations=iterations
        )
        assert after.owner[0].tolist() == owner
        assert after.size[0].tolist() == [len(group) for group in groups]
        for k, group in enumerate(groups):
            vector = after.patches[0, k].tolist()
            if output == "mean":
                assert vector == pytest.approx(mean_of(points, weight, group), abs=1e-12)
            elif algorithm == "kmedoids":
                assert vector == points[medoids[k]]
            else:  # one of the tokens nearest to the centre: in an unweighted pair, both are
                least = min(gap(points[i], centres[k]) for i in group)
                assert points.index(vector) in group
                assert gap(vector, centres[k]) == pytest.approx(least, abs=1e-12)
        compared += 1
    assert compared >= 20  # empty clusters are rare, and tested below


def test_received_attention_is_needed_only_if_it_is_used():
    for weighted in (True, False):
        for init in ("scores", "farthest"):
            needs = create("token_pooling", weighted=weighted, init=init).needs
            assert needs == (frozenset() if not weighted and init == "farthest" else {"received"})


# K-Means against scikit-learn


@pytest.mark.parametrize("weighted", [True, False])
def test_kmeans_equals_scikit_learn(weighted: bool):
    compared = 0
    for seed in range(12):
        n, keep, iterations = 30 + seed, 4 + seed % 7, 1 + seed % 5
        f, received = cloud(n, 5, 100 + seed)
        weight = received if weighted else torch.ones_like(received)
        start = received.topk(keep).indices
        if not lloyd(f.tolist(), weight.tolist(), start.tolist(), iterations)[2]:
            continue  # scikit-learn fills empty clusters differently
        peer = KMeans(keep, init=f[start].numpy(), n_init=1, algorithm="lloyd", tol=0, max_iter=iterations)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            peer.fit(f.numpy(), sample_weight=weight.numpy())
        after = pool(f, received, keep, algorithm="kmeans", weighted=weighted, iterations=iterations)
        assert torch.allclose(after.patches[0], torch.from_numpy(peer.cluster_centers_), rtol=1e-9, atol=1e-9)
        compared += 1
    assert compared >= 10


# K-Medoids


@pytest.mark.parametrize("seed", range(4))
def test_swaps_are_for_k_medoids_and_lower_the_objective(seed: int):
    f, received = cloud(60, 8, 300 + seed)
    start = received.topk(30).indices
    published = pool(f, received, 30, output="medoid")
    swapped = pool(f, received, 30, output="medoid", refine="swap")
    owner, medoids = kmedoids_with_swaps(f[None], received[None], start[None], 5)
    assert torch.equal(swapped.patches, medoids)
    assert torch.equal(swapped.owner, owner)
    assert objective(f, received, swapped.patches[0]) < objective(f, received, published.patches[0])


def test_swaps_with_k_means_are_rejected():
    with pytest.raises(UserError, match="refine=swap: K-Means has no medoids to swap; use algorithm=kmedoids"):
        create("token_pooling", algorithm="kmeans", refine="swap")


@pytest.mark.parametrize("seed", range(6))
def test_the_k_medoids_of_haurum_moves_each_medoid_to_the_member_with_the_least_weighted_sum_of_distances(seed: int):
    n, keep = 20, 6
    f, received = cloud(n, 3, 400 + seed)
    points, weight = f.tolist(), received.tolist()
    cost = [weight[i] * sum(math.dist(points[i], other) for other in points) for i in range(n)]
    medoids = starts(points, weight, keep, "scores")
    for _ in range(3):
        centres = [points[i] for i in medoids]
        owner = [nearest(point, centres) for point in points]
        medoids = [min((i for i in range(n) if owner[i] == k), key=lambda i: cost[i]) for k in range(keep)]
    centres = [points[i] for i in medoids]
    after = pool(f, received, keep, algorithm="haurum_kmedoids", output="medoid", iterations=3)
    assert after.patches[0].tolist() == centres
    assert after.owner[0].tolist() == [nearest(point, centres) for point in points]


def test_swaps_in_the_k_medoids_of_haurum_are_rejected():
    with pytest.raises(UserError, match="another objective; use algorithm=kmedoids"):
        create("token_pooling", algorithm="haurum_kmedoids", refine="swap")


@pytest.mark.parametrize("seed", range(8))
def test_no_swap_inside_a_cluster_improves_a_fixed_point(seed: int):
    f, received = cloud(30, 3, 200 + seed)
    settled = pool(f, received, 6, output="medoid", iterations=60)
    further = pool(f, received, 6, output="medoid", iterations=61)
    assert torch.equal(settled.patches, further.patches)
    points, weight, owner = f.tolist(), received.tolist(), settled.owner[0].tolist()
    medoids = settled.patches[0].tolist()
    for k, medoid in enumerate(medoids):
        group = [i for i, cluster in enumerate(owner) if cluster == k]
        assert points.index(medoid) in group
        cost = math.fsum(weight[i] * gap(points[i], medoid) for i in group)
        assert all(math.fsum(weight[i] * gap(points[i], points[j]) for i in group) >= cost * (1 - 1e-12) for j in group)
        assert all(nearest(points[i], medoids) == k for i in group)


def test_medoids_are_tokens_of_the_image():
    f, received = cloud(25, 3, 5, torch.float32)
    for algorithm in ("kmeans", "kmedoids"):
        after = pool(f, received, 8, algorithm=algorithm, output="medoid")
        for k, vector in enumerate(after.patches[0]):
            (index,) = (f == vector).all(dim=1).nonzero().flatten().tolist()
            assert after.owner[0, index] == k


def test_summing_over_all_tokens_instead_of_the_cluster_raises_the_objective_above_its_start():
    """The update of the public benchmark (Haurum et al. 2023): argmin over i in C_k of w_i * sum over ALL j of d_ij."""

    def update_of_the_benchmark(f: Tensor, weight: Tensor, start: Tensor, iterations: int) -> Tensor:
        distance = (f[:, None] - f).square().sum(dim=2).sqrt()
        medoids = start.clone()
        for _ in range(iterations):
            owner = distance[:, medoids].argmin(dim=1)
            for k in range(len(medoids)):
                group = (owner == k).nonzero().flatten()
                medoids[k] = group[(weight[group] * distance[group].sum(dim=1)).argmin()]
        return medoids

    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        middles = torch.randn(10, 32, generator=generator, dtype=torch.float64)
        f = middles[torch.arange(196) % 10] + 0.3 * torch.randn(196, 32, generator=generator, dtype=torch.float64)
        received = torch.rand(196, generator=generator, dtype=torch.float64) + 0.05
        for keep in (49, 98):
            start = received.topk(keep).indices
            before = objective(f, received, f[start])
            theirs = objective(f, received, f[update_of_the_benchmark(f, received, start, 3)])
            ours = objective(f, received, pool(f, received, keep, output="medoid", iterations=3).patches[0])
            assert theirs > before
            assert ours <= before


# The result


@pytest.mark.parametrize("algorithm", ["kmeans", "kmedoids"])
def test_the_gradient_of_the_mean_is_proportional_to_the_weights(algorithm: str):
    f, received = cloud(12, 3, 3)
    f.requires_grad_()
    after = pool(f, received, 4, algorithm=algorithm)
    for k in range(4):
        (gradient,) = torch.autograd.grad(after.patches[0, k, 0], f, retain_graph=True)
        mine = (after.owner[0] == k).double() * received
        assert torch.allclose(gradient[:, 0], mine / mine.sum())
        assert (gradient[:, 1:] == 0).all()


@pytest.mark.parametrize("algorithm", ["kmeans", "kmedoids"])
def test_a_common_offset_does_not_change_the_clusters(algorithm: str):
    # In float32 the squares of 1000 have a step of 0.06, which is the size of the distances here.
    f, received = cloud(40, 8, 9, torch.float32)
    f = (f * 64).round() / 64  # so that adding the offset is exact
    near, far = (pool(f * 0.25 + offset, received, 10, algorithm=algorithm) for offset in (0, 1024))
    assert torch.equal(near.owner, far.owner)


def test_zero_iterations_are_rejected():
    with pytest.raises(UserError, match="iterations=0: must be at least 1"):
        create("token_pooling", iterations=0)
