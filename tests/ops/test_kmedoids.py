"""K-Medoids against plain loops of the published alternation: assign to the nearest medoid, then move each medoid."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench import kmedoids


def alternation(
    points: list[list[float]], weight: list[float], start: list[int], iterations: int
) -> tuple[list[int], list[int]]:
    """The cluster of each point and the medoids. Of equal choices the first is taken; a medoid stays with itself."""

    def distance(i: int, j: int) -> float:
        return math.fsum((a - b) ** 2 for a, b in zip(points[i], points[j], strict=True))

    def assign(medoids: list[int]) -> list[int]:
        owner = []
        for i in range(len(points)):
            nearest = 0
            for k in range(len(medoids)):
                if distance(i, medoids[k]) < distance(i, medoids[nearest]):
                    nearest = k
            owner.append(medoids.index(i) if i in medoids else nearest)
        return owner

    medoids = list(start)
    for _ in range(iterations):
        owner = assign(medoids)
        for k in range(len(medoids)):
            members = [i for i in range(len(points)) if owner[i] == k]
            costs = [math.fsum(weight[i] * distance(i, j) for i in members) for j in members]
            medoids[k] = members[costs.index(min(costs))]
    return assign(medoids), medoids


@pytest.mark.parametrize("share", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
def test_it_equals_the_loops(iterations: int, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(6, 30, 4, generator=generator, dtype=torch.float64)
    weight = torch.rand(6, 30, generator=generator, dtype=torch.float64) + 0.1
    start = weight.topk(round(share * 30)).indices
    owner, centres = kmedoids(f, weight, start, iterations)
    for image in range(6):
        expected, medoids = alternation(f[image].tolist(), weight[image].tolist(), start[image].tolist(), iterations)
        assert owner[image].tolist() == expected
        assert torch.equal(centres[image], f[image, medoids])


@st.composite
def lattice(draw: st.DrawFn) -> tuple[list[list[float]], list[float], list[int]]:
    """Points on a coarse lattice, so with duplicates and ties everywhere.

    Their number is a power of two, so that their mean and all distances are exact.
    """
    n, dim, side = draw(st.sampled_from([2, 4, 8, 16])), draw(st.integers(1, 2)), draw(st.integers(0, 4))
    coordinate = st.integers(0, side).map(float)
    points = draw(st.lists(st.lists(coordinate, min_size=dim, max_size=dim), min_size=n, max_size=n))
    weight = draw(st.lists(st.integers(1, draw(st.integers(1, 4))).map(float), min_size=n, max_size=n))
    return points, weight, draw(st.permutations(range(n)))[: draw(st.integers(1, n))]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(case=lattice(), iterations=st.integers(0, 4))
def test_it_equals_the_loops_with_duplicates_ties_and_weights(
    case: tuple[list[list[float]], list[float], list[int]], iterations: int
) -> None:
    points, weight, start = case
    expected, medoids = alternation(points, weight, start, iterations)
    f = torch.tensor([points], dtype=torch.float64)
    owner, centres = kmedoids(f, torch.tensor([weight]).double(), torch.tensor([start]), iterations)
    assert owner[0].tolist() == expected
    assert centres[0].tolist() == [points[j] for j in medoids]
