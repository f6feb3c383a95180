"""K-Medoids with swaps against plain loops of its rules, and against PAM."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokbench import kmedoids, kmedoids_with_swaps


def cloud(batch: int, n: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(batch, n, dim, generator=generator, dtype=torch.float64)
    return points, torch.rand(batch, n, generator=generator, dtype=torch.float64) + 0.1


def gap(a: list[float], b: list[float]) -> float:
    return math.fsum((s - t) ** 2 for s, t in zip(a, b, strict=True))


def swapped_medoids(
    points: list[list[float]], weight: list[float], start: list[int], iterations: int
) -> tuple[list[int], list[int]]:
    """Clusters and the indices of their medoids, of which there are at least two."""
    every = range(len(points))
    distance = [[gap(a, b) for b in points] for a in points]

    def assigned(medoids):
        order = [sorted(medoids, key=lambda j, i=i: (i != j, distance[i][j], medoids.index(j))) for i in every]
        return [medoids.index(row[0]) for row in order], [medoids.index(row[1]) for row in order]

    def objective_of(medoids):
        return math.fsum(weight[i] * min(distance[i][j] for j in medoids) for i in every)

    def swapped(medoids, most, turn):
        first, second = assigned(medoids)
        before = objective_of(medoids)
        loss = [0.0] * len(medoids)
        for i in every:
            loss[first[i]] += weight[i] * (distance[i][medoids[second[i]]] - distance[i][medoids[first[i]]])
        linked = [{k} for k in range(len(medoids))]
        for i in every:
            linked[first[i]].add(second[i])
            linked[second[i]].add(first[i])
        leaving = sorted(
            (loss[k], k) for k, near in enumerate(linked) if all((loss[k], k) <= (loss[j], j) for j in near)
        )
        coming = []
        for k in range(len(medoids)):
            gains = [(objective_of([*medoids, i]) - before, i) for i in every if first[i] == k and i not in medoids]
            coming += [(change, k, i) for change, i in sorted(gains)[:1]]
        coming.sort()
        clear = [
            (change, i)
            for better, (change, k, i) in enumerate(coming)
            if not turn or all(distance[i][j] >= distance[i][medoids[k]] for _, _, j in coming[:better])
        ]
        pairs = [(k, i) for (lost, k), (change, i) in zip(leaving, clear, strict=False) if lost + change < 0]
        others = list(medoids)
        for k, i in pairs[:most]:
            others[k] = i
        return (others, most) if objective_of(others) < before else (medoids, len(pairs[:most]) // 2)

    medoids, most = list(start), len(start)
    for turn in range(iterations):
        medoids, most = swapped(medoids, most, turn)
        owner, _ = assigned(medoids)
        for k in range(len(medoids)):
            group = [i for i in every if owner[i] == k]
            medoids[k] = min(group, key=lambda j, group=group: math.fsum(weight[i] * distance[i][j] for i in group))
    return assigned(medoids)[0], medoids


def pam(distance: NDArray[np.float64], weight: NDArray[np.float64], start: list[int]) -> tuple[list[int], float]:
    """Repeat the best swap of a medoid for another point until no swap lowers the objective."""
    medoids, best = list(start), float(weight @ distance[:, start].min(axis=1))
    while True:
        tried = [
            (float(weight @ distance[:, [*medoids[:k], i, *medoids[k + 1 :]]].min(axis=1)), k, i)
            for k in range(len(medoids))
            for i in range(len(distance))
        ]
        lowest, k, i = min(tried)
        if lowest >= best * (1 - 1e-12):
            return medoids, best
        medoids[k], best = i, lowest


def objective(f: Tensor, weight: Tensor, centres: Tensor) -> Tensor:
    """(B) Σ_i w_i min_k |f_i - c_k|²."""
    return (weight * (f[:, :, None] - centres[:, None]).square().sum(dim=3).amin(dim=2)).sum(dim=1)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("seed", range(1, 5))
def test_simultaneous_swaps_equal_the_loops(seed: int, weighted: bool) -> None:
    f, weight = cloud(1, 60, 16, 300 + seed)
    start = weight.topk(15).indices
    weight = weight if weighted else torch.ones_like(weight)
    for iterations in (1, 2):
        owner, medoids = swapped_medoids(f[0].tolist(), weight[0].tolist(), start[0].tolist(), iterations)
        found, centres = kmedoids_with_swaps(f, weight, start, iterations)
        assert found[0].tolist() == owner
        assert torch.equal(centres[0], f[0, medoids])


@pytest.mark.parametrize("share", [0.5, 0.7])
@pytest.mark.parametrize("weighted", [True, False])
def test_it_is_close_to_pam_from_the_same_start_and_below_the_alternation(weighted: bool, share: float) -> None:
    n, images = 24, 12
    f, weight = cloud(images, n, 4, 11)
    start = weight.argsort(dim=1)[:, : round(share * n)]
    weight = weight if weighted else torch.ones_like(weight)
    distance = (f[:, :, None] - f[:, None]).square().sum(dim=3).numpy()
    best = [pam(d, w, s)[1] for d, w, s in zip(distance, weight.numpy(), start.tolist(), strict=True)]
    swapped = objective(f, weight, kmedoids_with_swaps(f, weight, start, 5)[1])
    alternated = objective(f, weight, kmedoids(f, weight, start, 5)[1])
    assert (swapped / torch.tensor(best)).mean() < 1.03
    assert swapped.sum() < alternated.sum()
