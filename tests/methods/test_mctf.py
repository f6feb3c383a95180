"""MCTF against plain loops over its formulas."""

import math
import random

import pytest
import torch
from torch import Tensor

from tokbench import Context, DownsampledViT, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.measure.macs import count_macs
from tokbench.schedule import planned_counts


def reduced(x: Tensor, received: Tensor, size: Tensor, keep: int, **params: float) -> Tokens:
    """Reduce tokens (B, N, D) with the given attention and size, after one class token."""
    batch, n, dim = x.shape
    tokens = Tokens.from_sequence(torch.cat([torch.zeros(batch, 1, dim).to(x), x], dim=1), (1, n)).replace(size=size)
    context = Context(depth=1, depths=(1,), stage=0, noise=torch.zeros(batch, n), received=received)
    return create("mctf", **params)(tokens, keep, context)


def matched(sources: list[int], targets: list[int], weight: dict[tuple[int, int], float], r: int) -> dict[int, int]:
    best = {i: max(targets, key=lambda j: weight[i, j]) for i in sources}
    ranked = sorted(sources, key=lambda i: -weight[i, best[i]])
    return {i: best[i] for i in ranked[:r]}


def oracle(
    x: list[list[float]], a: list[float], s: list[float], left: int, taus: tuple[float, float, float]
) -> dict[frozenset[int], list[float]]:
    """The resulting groups, and the vector of each."""
    n = len(x)

    def cosine(i: int, j: int) -> float:
        return sum(p * q for p, q in zip(x[i], x[j], strict=True)) / math.hypot(*x[i]) / math.hypot(*x[j])

    similar = {(i, j): (1 + cosine(i, j)) / 2 for i in range(n) for j in range(n) if i != j}
    dull = {pair: 1 / (a[pair[0]] * a[pair[1]]) for pair in similar}
    small = {pair: 1 / (s[pair[0]] * s[pair[1]]) for pair in similar}
    weight = dict.fromkeys(similar, 1.0)
    for factor, tau in zip((similar, dull, small), taus, strict=True):
        for pair in weight:
            weight[pair] *= (factor[pair] / max(factor.values())) ** (1 / tau)

    r = n - left
    even, odd = list(range(0, n, 2)), list(range(1, n, 2))
    groups = {i: {i} for i in range(n)}
    forward = matched(even, odd, weight, r // 2)
    for source, target in forward.items():
        groups[target] |= groups.pop(source)
    for source, target in matched(odd, [i for i in even if i not in forward], weight, r - r // 2).items():
        groups[target] |= groups.pop(source)
    vectors = {}
    for group in groups.values():
        total = sum(a[i] * s[i] for i in group)
        vectors[frozenset(group)] = [sum(a[i] * s[i] * x[i][c] for i in group) / total for c in range(len(x[0]))]
    return vectors


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("taus", [(1.0, 20.0, 40.0), (3.0, 2.0, 1.0)])
def test_groups_and_vectors_match_the_formulas(seed: int, taus: tuple[float, float, float]):
    draw = random.Random(seed)
    n = draw.choice([2, 3, 7, 10, 13])
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, n, 4, generator=generator, dtype=torch.float64)
    received = torch.rand(3, n, generator=generator, dtype=torch.float64) + 0.1
    size = torch.randint(1, 6, (3, n), generator=generator).float()
    for keep in range(1, n):
        after = reduced(x, received, size, keep, tau_sim=taus[0], tau_info=taus[1], tau_size=taus[2], smallest=1)
        assert after.n_patches == keep
        for b in range(3):
            wanted = oracle(x[b].tolist(), received[b].tolist(), size[b].tolist(), keep, taus)
            assert len(wanted) == keep
            owner = after.owner[b].tolist()
            for k in range(keep):
                group = frozenset(i for i in range(n) if owner[i] == k)
                assert after.patches[b, k].tolist() == pytest.approx(wanted[group])
                assert float(after.size[b, k]) == sum(size[b, list(group)])


def test_of_similar_tokens_the_least_attended_and_smallest_are_fused_first():
    x = torch.ones(2, 6, 3, dtype=torch.float64)
    received = torch.tensor([[3.0, 3.0, 1.0, 1.0, 3.0, 3.0], [1.0] * 6], dtype=torch.float64)
    size = torch.tensor([[1.0] * 6, [2.0, 2.0, 2.0, 2.0, 1.0, 1.0]])
    owner = reduced(x, received, size, 5, smallest=1).owner
    for b, (i, j) in enumerate([(2, 3), (4, 5)]):
        together = [(p, q) for p in range(6) for q in range(p) if owner[b, p] == owner[b, q]]
        assert together == [(j, i)]


def test_at_least_smallest_tokens_are_left():
    method = create("mctf")
    assert [method.count(keep, n, 1, None) for keep, n in ((3, 20), (9, 10), (1, 2), (12, 20))] == [10, 10, 2, 12]
    x = torch.randn(2, 14, 4, generator=torch.Generator().manual_seed(0))
    assert reduced(x, torch.ones(2, 14), torch.ones(2, 14), 4).n_patches == 10
    few = x[:, :6]
    after = reduced(few, torch.ones(2, 6), torch.ones(2, 6), 4)
    assert sorted(after.owner[0].tolist()) == list(range(6))
    assert torch.allclose(after.patches.gather(1, after.owner[..., None].expand(-1, -1, 4)), few)


def test_attention_that_underflows_to_zero_is_handled():
    x = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(3))
    after = reduced(x, torch.zeros(1, 12), torch.ones(1, 12), 11, smallest=1)
    assert (after.patches.norm(dim=2) > 0.01).all()


def test_the_published_schedule_removes_sixteen_tokens_in_each_block_after_the_first():
    method = create("mctf")
    counts = planned_counts(Schedule.parse(method.schedule), method, 12, (14, 14))
    assert Schedule.parse(method.schedule).depths(12) == tuple(range(1, 12))
    assert counts == tuple(196 - 16 * block for block in range(1, 12))


def test_its_macs_are_counted(tiny_vit):
    model = DownsampledViT(tiny_vit(), create("mctf", smallest=1), Schedule.stages(0.5, (1, 2))).eval()
    macs = count_macs(model, torch.zeros(1, 3, 32, 32))
    assert macs.ledger.leaving == (16, 8, 4, 4)
    assert macs.method > (8 * 8 + 4 * 4) * 32 + (16 * 17 + 8 * 9) * 32 // 2  # similarities, and QK of `received`


@pytest.mark.parametrize("params", [{"tau_sim": 0.0}, {"tau_info": -1.0}, {"tau_size": 0.0}, {"smallest": 0}])
def test_invalid_parameters_are_rejected(params: dict[str, float]):
    with pytest.raises(UserError):
        create("mctf", **params)
