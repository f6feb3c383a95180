"""Agglomerative clustering against scipy, and against loops over the definition of each linkage."""

import itertools

import numpy as np
import pytest
import torch
from plain_math import drawn
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist
from torch import Tensor

from tokbench import Context, DownsampledViT, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.measure.macs import count_macs

LINKAGES = ["average", "single", "complete"]


def reduced(x: Tensor, keys: Tensor, keep: int, kind: str, size: Tensor | None = None) -> Tokens:
    batch, n, dim = x.shape
    tokens = Tokens.from_sequence(torch.cat([torch.zeros(batch, 1, dim).to(x), x], dim=1), (1, n)).replace(size=size)
    context = Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(batch, n), keys=keys)
    return create("atc", linkage=kind)(tokens, keep, context)


def partition(owner: list[int]) -> set[frozenset[int]]:
    return {frozenset(i for i, label in enumerate(owner) if label == wanted) for wanted in set(owner)}


def agglomerated(distance: list[list[float]], count: int, kind: str) -> list[list[int]]:
    """Cluster by the linkages' definitions, over all pairs of tokens."""
    of = {"average": lambda all_: sum(all_) / len(all_), "single": min, "complete": max}[kind]
    clusters = [[i] for i in range(len(distance))]
    while len(clusters) > count:
        pairs = itertools.combinations(clusters, 2)
        first, second = min(pairs, key=lambda pair: of([distance[i][j] for i in pair[0] for j in pair[1]]))
        clusters[clusters.index(first)] = first + second
        clusters.remove(second)
    return clusters


@pytest.mark.parametrize("kind", LINKAGES)
@pytest.mark.parametrize(("seed", "n"), [(0, 2), (1, 5), (2, 12), (3, 23)])
def test_clusters_equal_scipys(kind: str, seed: int, n: int):
    x, keys = drawn(seed, 3, n, 4), drawn(seed + 50, 3, n, 5)
    for keep in range(1, n):
        after = reduced(x, keys, keep, kind)
        assert after.n_patches == keep
        for b in range(3):
            tree = linkage(pdist(keys[b].numpy(), "cosine"), kind)
            assert partition(after.owner[b].tolist()) == partition(fcluster(tree, keep, "maxclust").tolist())


def test_without_proportional_attention_sizes_do_not_weight_the_mean():
    x, keys = drawn(0, 1, 3, 4), torch.tensor([[[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]]).double()
    tokens = Tokens.from_sequence(torch.cat([x[:, :1], x], dim=1), (1, 3))
    tokens = tokens.replace(size=torch.tensor([[9.0, 1.0, 1.0]]))
    method = create("atc", proportional=False)
    assert not method.proportional
    after = method(tokens, 2, Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(1, 3), keys=keys))
    assert torch.allclose(after.patches[0], torch.stack([(x[0, 0] + x[0, 1]) / 2, x[0, 2]]))
    assert after.size.tolist() == [[10.0, 1.0]]


@pytest.mark.parametrize("kind", LINKAGES)
@pytest.mark.parametrize("seed", range(3))
def test_clusters_and_vectors_match_the_definitions(kind: str, seed: int):
    n = 9
    x, keys = drawn(seed, 2, n, 4), drawn(seed + 50, 2, n, 3)
    size = torch.randint(1, 5, (2, n), generator=torch.Generator().manual_seed(seed)).float()
    for keep in range(1, n):
        after = reduced(x, keys, keep, kind, size)
        for b in range(2):
            unit = [np.array(k) / np.linalg.norm(k) for k in keys[b].tolist()]
            distance = [[1 - float(p @ q) for q in unit] for p in unit]
            for k, cluster in enumerate(agglomerated(distance, keep, kind)):
                assert [i for i in range(n) if after.owner[b, i] == k] == sorted(cluster)
                mass = sum(float(size[b, i]) for i in cluster)
                mean = sum(float(size[b, i]) * np.array(x[b, i].tolist()) for i in cluster) / mass
                assert after.patches[b, k].tolist() == pytest.approx(mean.tolist())
                assert float(after.size[b, k]) == mass


@pytest.mark.parametrize("kind", LINKAGES)
def test_the_first_of_equally_near_pairs_is_merged(kind: str):
    after = reduced(drawn(0, 1, 6, 2), torch.ones(1, 6, 4, dtype=torch.float64), 3, kind)
    assert after.owner[0].tolist() == [0, 0, 0, 0, 1, 2]


@pytest.mark.parametrize("kind", LINKAGES)
def test_a_zero_key_is_handled(kind: str):
    keys = drawn(0, 1, 6, 4)
    keys[0, 2:4] = 0
    after = reduced(drawn(1, 1, 6, 2), keys, 3, kind)
    assert after.patches.isfinite().all()
    assert set(after.owner[0].tolist()) == {0, 1, 2}


def test_the_linkages_differ_on_a_chain():
    # Points on a circle, each a little farther from the one before than that is from its own.
    angle = torch.tensor([0.0, 0.20, 0.41, 0.63, 0.86, 1.30], dtype=torch.float64)
    keys = torch.stack([angle.cos(), angle.sin()], dim=1)[None]
    two = {kind: partition(reduced(drawn(0, 1, 6, 2), keys, 2, kind).owner[0].tolist()) for kind in LINKAGES}
    assert two["single"] == {frozenset(range(5)), frozenset({5})}
    assert two["complete"] == {frozenset(range(4)), frozenset({4, 5})}


def test_its_macs_are_counted(tiny_vit):
    model = DownsampledViT(tiny_vit(), create("atc"), Schedule.stages(0.5, (1, 2))).eval()
    macs = count_macs(model, torch.zeros(1, 3, 32, 32))
    assert macs.ledger.leaving == (16, 8, 4, 4)
    assert macs.method > (16 * 16 + 8 * 8) * 16  # the cosines of keys of 16 channels


def test_an_unknown_linkage_is_rejected():
    with pytest.raises(UserError):
        create("atc", linkage="ward")
