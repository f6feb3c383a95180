"""PiToMe against its formulas in plain loops."""

import math

import pytest
import torch
from blank_models import blank
from plain_math import context_of
from torch import Tensor

from tokbench import DownsampledViT, Geometry, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.measure.macs import count_macs


def noisy(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: list[float], b: list[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True)) / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))


def energies(keys: list[list[float]], depth: int, layers: int, margin: float, alpha: float) -> list[float]:
    m = margin * (1 - depth / layers)
    energy = []
    for a in keys:
        above = [cosine(a, b) - m for b in keys]
        energy.append(sum(z if z >= 0 else alpha * (math.exp(z) - 1) for z in above) / len(keys))
    return energy


def groups(
    keys: list[list[float]], depth: int, layers: int, margin: float, alpha: float, r: int
) -> set[frozenset[int]]:
    n = len(keys)
    energy = energies(keys, depth, layers, margin, alpha)
    ranked = sorted(range(n), key=lambda i: -energy[i])
    mergeable = ranked if depth < math.ceil(layers / 2) else ranked[: 2 * r]
    sources, targets = mergeable[0::2], mergeable[1::2]
    best = {a: max(targets, key=lambda b: cosine(keys[a], keys[b])) for a in sources}
    merged = sorted(sources, key=lambda a: -cosine(keys[a], keys[best[a]]))[:r]
    together = {i: {i} for i in range(n) if i not in merged}
    for a in merged:
        together[best[a]].add(a)
    return {frozenset(members) for members in together.values()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("depth", "layers", "margin", "alpha"),
    [
        (0, 12, 0.75, 1.0),
        (5, 12, 0.75, 1.0),
        (6, 12, 0.75, 1.0),
        (11, 12, 0.75, 1.0),
        (2, 5, 0.2, 0.3),
        (3, 5, -0.1, 2.0),
    ],
)
def test_tokens_with_high_energy_are_merged(seed: int, depth: int, layers: int, margin: float, alpha: float):
    method = create("pitome", layers=layers, margin=margin, alpha=alpha)
    for n in (2, 3, 6, 11):
        x, keys = noisy(2, 1 + n, 4, seed=seed), noisy(2, n, 3, seed=70 + seed)
        size = (noisy(2, n, seed=30 + seed).abs() * 3 + 1).float()
        tokens = Tokens.from_sequence(x, (1, n)).replace(size=size)
        for keep in range(1, n):
            r = min(n - keep, n // 2)
            after = method(tokens, keep, context_of(keys, depth))
            assert after.n_patches == n - r == method.count(keep, n, depth, (1, n))
            for b in range(2):
                expected = groups(keys[b].tolist(), depth, layers, margin, alpha, r)
                found = {frozenset(i for i in range(n) if after.owner[b, i] == j) for j in range(n - r)}
                assert found == expected
                for members in expected:
                    j = int(after.owner[b, min(members)])
                    mass = sum(size[b, i].item() for i in members)
                    mean = sum(size[b, i].item() * tokens.patches[b, i] for i in members) / mass
                    torch.testing.assert_close(after.patches[b, j], mean)
                    assert after.size[b, j].item() == pytest.approx(mass)


def test_late_blocks_protect_a_distinct_token_that_early_ones_may_merge():
    # Four similar tokens, and two that are similar only to each other: the most similar pair, but in a small cluster.
    keys = torch.tensor(
        [
            [
                [1.0, 0.05, 0.0],
                [1.0, -0.05, 0.0],
                [1.0, 0.0, 0.05],
                [0.0, 0.0, -1.0],
                [1.0, 0.0, -0.05],
                [0.0, 0.001, -1.0],
            ]
        ]
    )
    tokens = Tokens.from_sequence(noisy(1, 7, 4, seed=0), (1, 6))
    early = create("pitome")(tokens, 5, context_of(keys, 0))
    assert early.owner[0, 3] == early.owner[0, 5]
    late = create("pitome")(tokens, 4, context_of(keys, 6))
    assert late.size[0, late.owner[0, 3]] == 1
    assert late.size[0, late.owner[0, 5]] == 1
    assert sorted(late.size[0].tolist()) in ([1, 1, 2, 2], [1, 1, 1, 3])


def test_invalid_parameters_are_rejected():
    for params in ({"layers": 0}, {"margin": 1.5}, {"alpha": -1.0}):
        with pytest.raises(UserError):
            create("pitome", **params)
    with pytest.raises(ValueError, match="block 23"):
        create("pitome").setup(Geometry(dim=4, heads=1, depths=tuple(range(24)), grid=(2, 2), counts=(3,) * 24))


def test_compute_matches_the_keep_ratio_of_each_layer():
    vit = blank("deit_tiny_patch16_224")
    macs = count_macs(
        DownsampledViT(vit, create("pitome"), Schedule.every_block(0.9)).eval(), torch.zeros(1, 3, 224, 224)
    )
    left, n = [], 196
    for _ in range(12):
        n -= n // 10  # ⌊N - ρN⌋ are removed
        left.append(n)
    assert macs.ledger.leaving == tuple(left)
    assert macs.method > sum(n * n * 64 for n in [196, *left[:-1]])  # at least the cosines of all pairs
