"""DPC-KNN against plain loops over its formulas."""

import math
from decimal import Decimal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokbench import Context, DownsampledViT, Geometry, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.measure.macs import count_macs


def reduced(x: Tensor, keep: int, neighbours: int = 5) -> Tokens:
    batch, n, dim = x.shape
    tokens = Tokens.from_sequence(torch.cat([torch.zeros(batch, 1, dim).to(x), x], dim=1), (1, n))
    context = Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(batch, n))
    return create("dpc_knn", neighbours=neighbours)(tokens, keep, context)


def oracle(x: list[list[float]], keep: int, k: int) -> list[int]:
    """The cluster of each token, clusters in the order of their centres."""
    n = len(x)
    d = [[math.dist(p, q) / math.sqrt(len(p)) for q in x] for p in x]
    density = []
    for i in range(n):
        nearest = sorted(d[i][j] for j in range(n) if j != i)[:k]
        density.append((-Decimal(sum(gap * gap for gap in nearest)) / len(nearest)).exp())  # no float reaches that low
    score = []
    for i in range(n):
        denser = [j for j in range(n) if density[j] > density[i] or (density[j] == density[i] and j < i)]
        delta = min(d[i][j] for j in denser) if denser else max(d[i])
        score.append(density[i] * Decimal(delta))
    centres = sorted(sorted(range(n), key=lambda i: -score[i])[:keep])
    return [centres.index(i) if i in centres else min(range(keep), key=lambda c: d[i][centres[c]]) for i in range(n)]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 14), st.integers(1, 7), st.data())
def test_clusters_and_vectors_match_the_formulas(seed: int, n: int, k: int, data: st.DataObject):
    keep = data.draw(st.integers(1, n - 1))
    x = torch.randn(2, n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    after = reduced(x, keep, k)
    for b in range(2):
        owner = oracle(x[b].tolist(), keep, k)
        assert after.owner[b].tolist() == owner
        for c in range(keep):
            group = [i for i in range(n) if owner[i] == c]
            mean = [sum(x[b, i, channel].item() for i in group) / len(group) for channel in range(3)]
            assert after.patches[b, c].tolist() == pytest.approx(mean)
            assert float(after.size[b, c]) == len(group)


def haurum_oracle(x: list[list[float]], noise: list[float], keep: int, k: int) -> list[set[int]]:
    """The clusters of the variant `haurum`, in the order of their centres' scores."""
    n = len(x)
    d = [[math.dist(p, q) / math.sqrt(len(p)) for q in x] for p in x]
    density = [math.exp(-sum(gap * gap for gap in sorted(d[i])[:k]) / k) + 1e-6 * noise[i] for i in range(n)]
    score = []
    for i in range(n):
        denser = [d[i][j] for j in range(n) if density[j] > density[i]]
        score.append(density[i] * (min(denser) if denser else max(max(row) for row in d)))
    centres = sorted(range(n), key=lambda i: -score[i])[:keep]
    owner = [centres.index(i) if i in centres else min(range(keep), key=lambda c: d[i][centres[c]]) for i in range(n)]
    return [{i for i in range(n) if owner[i] == c} for c in range(keep)]


@pytest.mark.parametrize("scale", [0.5, 20.0])  # densities of about 1, and so small that the noise decides
@pytest.mark.parametrize("weights", ["equal", "learned"])
def test_the_variant_of_haurum_matches_its_formulas(scale: float, weights: str):
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        n, keep, k = 12, 5, 4
        x = torch.randn(2, n, 3, generator=generator, dtype=torch.float64) * scale
        noise = torch.rand(2, n, generator=generator, dtype=torch.float64)
        method = create("dpc_knn", neighbours=k, weights=weights, variant="haurum")
        method.setup(Geometry(3, 1, (3,), (1, n), (keep,)))
        tokens = Tokens.from_sequence(torch.cat([x[:, :1], x], dim=1), (1, n))
        after = method.double()(tokens, keep, Context(depth=3, depths=(3,), stage=0, noise=noise))
        for b in range(2):
            clusters = haurum_oracle(x[b].tolist(), noise[b].tolist(), keep, k)
            for c, cluster in enumerate(clusters):
                assert {i for i in range(n) if after.owner[b, i] == c} == cluster
                weight = dict.fromkeys(cluster, 1.0)
                if weights == "learned":
                    weight = {i: method.scores[0](x[b, i]).exp().item() for i in cluster}
                total = sum(weight.values()) + (1e-6 if weights == "learned" else 0)
                mean = [sum(weight[i] * x[b, i, d].item() for i in cluster) / total for d in range(3)]
                assert after.patches[b, c].tolist() == pytest.approx(mean, rel=1e-9, abs=1e-9)


def test_learned_weights_neither_overflow_nor_vanish_and_get_a_gradient():
    method = create("dpc_knn", weights="learned")
    assert method.trained
    method.setup(Geometry(1, 1, (3,), (1, 4), (2,)))
    with torch.no_grad():
        method.scores[0].weight.fill_(1.0)
        method.scores[0].bias.fill_(0.0)
    x = torch.tensor([[[1000.0], [1001.0], [-1000.0], [-1001.0]]])
    tokens = Tokens.from_sequence(torch.cat([x[:, :1], x], dim=1), (1, 4))
    after = method(tokens, 2, Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(1, 4)))
    share = 1 / (1 + math.exp(-1))  # of the token with the larger score
    assert after.patches[0, :, 0].tolist() == pytest.approx([1000 + share, -1001 + share])
    after.patches.square().sum().backward()
    assert method.scores[0].weight.grad.abs() > 0


def test_sizes_do_not_weight_the_mean():
    x = torch.tensor([[[0.0], [0.1], [0.5]]], dtype=torch.float64)
    tokens = Tokens.from_sequence(torch.cat([torch.zeros(1, 1, 1).to(x), x], dim=1), (1, 3))
    tokens = tokens.replace(size=torch.tensor([[9.0, 1.0, 1.0]]))
    after = create("dpc_knn", neighbours=1)(tokens, 2, Context(depth=0, depths=(0,), stage=0, noise=torch.zeros(1, 3)))
    assert after.patches[0, :, 0].tolist() == pytest.approx([0.05, 0.5])
    assert after.size[0].tolist() == [10.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_tokens_are_separated_if_their_density_underflows(dtype: torch.dtype):
    x = torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 500
    x = x.round().to(dtype)
    for keep in (2, 5, 9):
        assert reduced(x, keep).owner.tolist() == [oracle(image, keep, 5) for image in x.tolist()]


def test_three_clusters_are_found():
    generator = torch.Generator().manual_seed(1)
    heap = torch.arange(15) % 3
    middle = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])[heap]
    x = (middle + torch.randn(15, 2, generator=generator) * 0.1)[None]
    owner = reduced(x, 3, neighbours=3).owner[0].tolist()
    assert {frozenset(i for i in range(15) if owner[i] == c) for c in range(3)} == {
        frozenset(range(start, 15, 3)) for start in range(3)
    }


def test_each_centre_keeps_its_own_cluster_among_equal_tokens():
    after = reduced(torch.ones(2, 6, 3), 4)
    assert after.owner.tolist() == [[0, 1, 2, 3, 0, 0]] * 2
    assert (after.patches == 1).all()


def test_clustering_is_deterministic_for_every_seed():
    x = torch.randn(1, 12, 3, generator=torch.Generator().manual_seed(0))
    tokens = Tokens.from_sequence(torch.cat([x[:, :1], x], dim=1), (3, 4))
    owners = []
    for seed in range(3):
        noise = torch.rand(1, 12, generator=torch.Generator().manual_seed(seed))
        context = Context(depth=0, depths=(0,), stage=0, noise=noise)
        owners.append(create("dpc_knn")(tokens, 5, context).owner.tolist())
    assert owners[0] == owners[1] == owners[2]
    assert not create("dpc_knn").stochastic


def test_its_macs_are_counted(tiny_vit):
    model = DownsampledViT(tiny_vit(), create("dpc_knn"), Schedule.stages(0.5, (1, 2))).eval()
    macs = count_macs(model, torch.zeros(1, 3, 32, 32))
    assert macs.ledger.leaving == (16, 8, 4, 4)
    assert macs.method > (16 * 16 + 8 * 8) * 32  # the distances


def test_zero_neighbours_are_rejected():
    with pytest.raises(UserError):
        create("dpc_knn", neighbours=0)
