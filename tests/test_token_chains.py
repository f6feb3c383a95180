"""Tokens after several operations: consistency, precision and gradients."""

import math

import pytest
import torch
from any_tokens import QUICK, SEEDS, any_tokens, integers, rng
from hypothesis import given
from hypothesis import strategies as st

from tokbench import Tokens, group_sum


def close(actual, expected, tolerance=1e-12):
    return torch.allclose(
        actual.double(), torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )


# Chains of operations


@QUICK
@given(st.integers(1, 3), st.integers(0, 2), SEEDS, st.lists(st.sampled_from(["select", "merge", "drop"]), max_size=4))
def test_sizes_owners_and_vectors_are_consistent_after_any_chain(batch, prefix, seed, operations):
    g = rng(seed)
    x = torch.randn(batch, prefix + 12, 3, generator=g, dtype=torch.float64)
    tokens = Tokens.from_sequence(x, (3, 4), prefix)
    for operation in operations:
        n = tokens.n_patches
        count = int(integers(g, 1, n + 1))
        mass = tokens.size.sum(dim=1)
        if operation == "select":
            index = torch.stack([torch.randperm(n, generator=g)[:count] for _ in range(batch)])
            lost = torch.stack(
                [
                    sum(tokens.size[b, i] for i in range(n) if i not in index[b].tolist()) + 0.0 * mass[b]
                    for b in range(batch)
                ]
            )
            tokens = tokens.select(index)
        else:
            group = integers(g, -1 if operation == "drop" else 0, count, batch, n)
            lost = (tokens.size * (group < 0)).sum(dim=1)
            tokens = tokens.merge(group, count)
        assert torch.equal(tokens.size.sum(dim=1), mass - lost)
    if not {"select", "drop"} & set(operations):
        assert tokens.size.sum(dim=1).tolist() == [12.0] * batch
    patches = x[:, prefix:]
    for b in range(batch):
        for j in range(tokens.n_patches):
            mine = [p for p in range(12) if tokens.owner[b, p] == j]
            assert tokens.size[b, j] == len(mine)
            mean = [math.fsum(float(patches[b, p, d]) for p in mine) / max(1, len(mine)) for d in range(3)]
            assert close(tokens.patches[b, j], mean)
    assert torch.equal(tokens.prefix, x[:, :prefix])
    assert tokens.owner.dtype == torch.int64
    assert tokens.size.dtype == torch.float32


@QUICK
@given(any_tokens(), SEEDS)
def test_no_operation_changes_its_input(tokens, seed):
    before = [field.clone() for field in (tokens.x, tokens.size, tokens.owner)]
    batch, n = tokens.size.shape
    tokens.select(torch.zeros(batch, 1, dtype=torch.int64))
    tokens.merge(integers(rng(seed), -1, 2, batch, n), 2)
    tokens.mix(torch.rand(batch, 2, n, generator=rng(seed), dtype=torch.float64))
    tokens.append(torch.zeros(batch, 1, 3), torch.zeros(batch, 1), torch.zeros_like(tokens.owner))
    tokens.replace(patches=torch.zeros_like(tokens.patches), size=torch.zeros_like(tokens.size))
    assert all(torch.equal(a, b) for a, b in zip(before, (tokens.x, tokens.size, tokens.owner), strict=True))


# Merging: order, precision, empty groups, gradients


def test_merging_twice_gives_the_same_bits():
    g = rng(3)
    tokens = Tokens.from_sequence(torch.randn(3, 401, 16, generator=g), (20, 20))
    group, weight = integers(g, -1, 30, 3, 400), torch.rand(3, 400, generator=g)
    first, second = tokens.merge(group, 30, weight), tokens.merge(group, 30, weight)
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.size, second.size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_merges_equal_the_exact_mean_rounded_once(dtype):
    # 2500 values near 1: summed in half precision the total would stick at 2048 (float16) or 256 (bfloat16).
    g = rng(5)
    x = (torch.rand(1, 2501, 4, generator=g) + 0.5).to(dtype)
    tokens = Tokens.from_sequence(x, (50, 50))
    after = tokens.merge(integers(g, 0, 2, 1, 2500) * 0, 1)
    assert after.x.dtype == dtype
    assert after.size.item() == 2500
    exact = [math.fsum(x[0, 1:, d].double().tolist()) / 2500 for d in range(4)]
    for d in range(4):
        got = after.patches[0, 0, d]
        ulp = torch.finfo(dtype).eps * 2.0 ** math.floor(math.log2(exact[d]))
        assert abs(float(got) - exact[d]) <= ulp * 0.501  # half a step, plus the rounding errors of float32 sums


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_operation_keeps_the_data_type(dtype):
    tokens = Tokens.from_sequence(torch.randn(2, 7, 4, generator=rng(0)).to(dtype), (2, 3))
    weight = torch.rand(2, 6, generator=rng(1))
    results = [
        tokens.select(torch.tensor([[0, 2]] * 2)),
        tokens.merge(torch.tensor([[0, 1, 0, 1, 1, 0]] * 2), 2, weight),
        tokens.mix(weight[:, None].expand(2, 3, 6)),
        tokens.append(torch.zeros(2, 1, 4), torch.zeros(2, 1), tokens.owner * 0),
        tokens.replace(patches=torch.zeros(2, 6, 4), size=weight.double()),
    ]
    for result in results:
        assert result.x.dtype == dtype
        assert result.size.dtype == torch.float32
        assert result.owner.dtype == torch.int64


def test_a_group_without_members_or_without_weight_is_a_zero_vector():
    tokens = Tokens.from_sequence(torch.ones(1, 7, 4), (2, 3))
    after = tokens.merge(torch.tensor([[0, 0, 0, 2, 2, -1]]), 3, torch.tensor([[1.0, 1, 1, 0, 0, 1]]))
    assert after.patches[0].tolist() == [[1.0] * 4, [0.0] * 4, [0.0] * 4]
    assert after.size.tolist() == [[3, 0, 2]]
    assert after.owner.tolist() == [[0, 0, 0, 2, 2, -1]]


def test_gradients_flow_through_every_operation():
    x = torch.randn(1, 7, 3, generator=rng(0), dtype=torch.float64, requires_grad=True)
    weight = torch.rand(1, 6, generator=rng(1), dtype=torch.float64, requires_grad=True)
    matrix = torch.rand(1, 2, 6, generator=rng(2), dtype=torch.float64, requires_grad=True)
    group = torch.tensor([[0, 1, 0, -1, 1, 1]])
    index = torch.tensor([[4, 0, 3]])

    def start(x):
        return Tokens.from_sequence(x, (2, 3))

    assert torch.autograd.gradcheck(lambda x: start(x).select(index).x, x)
    assert torch.autograd.gradcheck(lambda x, weight: start(x).merge(group, 2, weight).x, (x, weight))
    assert torch.autograd.gradcheck(lambda x, matrix: start(x).mix(matrix).x, (x, matrix))
    assert torch.autograd.gradcheck(lambda x: start(x).append(x[:, :1], weight[:, :1], group * 0).x, x)
    assert torch.autograd.gradcheck(lambda x: start(x).replace(patches=x[:, 1:] * 2).x, x)


@QUICK
@given(st.integers(1, 3), st.integers(1, 8), st.integers(1, 5), SEEDS)
def test_group_sum_is_the_sum_of_each_group(batch, n, count, seed):
    g = rng(seed)
    values = torch.randn(batch, n, 2, generator=g, dtype=torch.float64)
    owner = integers(g, -1, count, batch, n)
    result = group_sum(values, owner, count)
    assert result.shape == (batch, count, 2)
    for b in range(batch):
        for k in range(count):
            members = [values[b, i].tolist() for i in range(n) if owner[b, i] == k]
            assert close(result[b, k], [math.fsum(m[d] for m in members) for d in range(2)])
