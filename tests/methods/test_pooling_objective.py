"""The objective of Token Pooling, and tokens that are equal or have no weight."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pooled_points import cloud, objective, pool
from torch import Tensor

QUICK = settings(max_examples=30, deadline=None, derandomize=True)


@st.composite
def crowded(draw) -> tuple[Tensor, Tensor, int]:
    """Points on a coarse lattice: duplicates and ties everywhere. Their coordinates and weights are small integers."""
    n, dim = draw(st.integers(2, 12)), draw(st.integers(1, 2))
    side = draw(st.integers(0, 4))
    coordinate = st.integers(0, side)
    points = draw(st.lists(st.lists(coordinate, min_size=dim, max_size=dim), min_size=n, max_size=n))
    weight = draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    return torch.tensor(points).double(), torch.tensor(weight).double(), draw(st.integers(1, n - 1))


ALGORITHMS = pytest.mark.parametrize(
    "params",
    [
        {"algorithm": "kmeans", "output": "mean"},
        {"algorithm": "kmedoids", "output": "medoid"},
        {"algorithm": "kmedoids", "output": "medoid", "refine": "swap"},
    ],
    ids=["kmeans", "kmedoids", "swaps"],
)


@ALGORITHMS
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("init", ["scores", "farthest"])
@QUICK
@given(case=crowded())
def test_the_objective_never_rises_and_no_token_is_empty(params: dict[str, str], weighted: bool, init: str, case):
    points, received, keep = case
    weight = received if weighted else torch.ones_like(received)
    reached = [math.inf]
    for iterations in range(1, 9):
        after = pool(points, received, keep, weighted=weighted, init=init, iterations=iterations, **params)
        assert after.patches.isfinite().all()
        assert after.size.min() >= 1
        assert sorted(set(after.owner[0].tolist())) == list(range(keep))
        assert after.size.sum() == len(points)
        reached.append(objective(points, weight, after.patches[0]))
        assert reached[-1] <= reached[-2] + 1e-12 * len(points) * 100  # the squares are at most 32, the weights 4


@ALGORITHMS
def test_the_objective_is_no_worse_than_at_the_start_and_mostly_better(params: dict[str, str]):
    better = 0
    for seed in range(12):
        f, received = cloud(40, 4, seed)
        before = objective(f, received, f[received.topk(15).indices])
        after = objective(f, received, pool(f, received, 15, **params).patches[0])
        assert after <= before * (1 + 1e-12)
        better += after < before * 0.999
    assert better >= 10


@ALGORITHMS
@pytest.mark.parametrize("init", ["scores", "farthest"])
@pytest.mark.parametrize("keep", [1, 2, 7, 15])
def test_equal_tokens_are_distributed_over_all_clusters(params: dict[str, str], init: str, keep: int):
    after = pool(torch.ones(16, 3), torch.ones(16), keep, init=init, **params)
    assert after.size.min() >= 1
    assert after.size.sum() == 16
    assert torch.equal(after.patches, torch.ones(1, keep, 3))


@pytest.mark.parametrize("algorithm", ["kmeans", "kmedoids"])
@pytest.mark.parametrize("output", ["mean", "medoid"])
@pytest.mark.parametrize("weighted", [True, False])
def test_tokens_without_attention_give_no_nan(algorithm: str, output: str, weighted: bool):
    f, _ = cloud(12, 3, 0, torch.float32)
    received = torch.tensor([0.0] * 10 + [1.0, 2.0])  # attention underflows to zero
    after = pool(f, received, 6, algorithm=algorithm, output=output, weighted=weighted)
    assert after.patches.isfinite().all()
    assert after.size.min() >= 1
    again = pool(f, received * 0, 6, algorithm=algorithm, output=output, weighted=weighted)
    assert again.patches.isfinite().all()
    assert again.size.min() >= 1


# The outlier is a start, and so a cluster of no weight.
LINE = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [50.0]])
LOOKED_AT = torch.tensor([3.0, 2.0, 1.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize("algorithm", ["kmeans", "kmedoids"])
def test_a_token_without_attention_does_not_affect_the_others(algorithm: str):
    after = pool(LINE, LOOKED_AT, 3, algorithm=algorithm, init="farthest")
    groups = {tuple((after.owner[0] == k).nonzero().flatten().tolist()) for k in range(3)}
    assert groups == {(0, 1, 2), (3, 4), (5,)}  # the formula does not determine the mean of the third group


def test_swaps_replace_a_medoid_without_attention():
    after = pool(LINE, LOOKED_AT, 3, algorithm="kmedoids", refine="swap", init="farthest")
    groups = {tuple((after.owner[0] == k).nonzero().flatten().tolist()) for k in range(3)}
    assert groups == {(0,), (1, 2), (3, 4, 5)}
    assert after.patches[0, after.owner[0, 5]].item() == pytest.approx(5.05)


@pytest.mark.parametrize("algorithm", ["kmeans", "kmedoids"])
def test_the_mean_of_a_cluster_without_weight_stays_among_its_tokens(algorithm: str):
    f = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.2]])
    received = torch.tensor([3.0, 2.0, 1.0, 0.0, 0.0])
    after = pool(f, received, 2, algorithm=algorithm, init="farthest")
    for k in range(2):
        mine = f[after.owner[0] == k]
        assert mine.min() <= after.patches[0, k, 0] <= mine.max()
