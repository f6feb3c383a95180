"""Tokens against plain loops: every vector, size and owner after each operation."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench import Tokens, group_sum

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**31)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def integers(generator, low, high, *shape):
    return torch.randint(low, high, shape, generator=generator)


@st.composite
def any_tokens(draw, masked=None):
    """Tokens as after some earlier reduction, in float64, to be compared with loops over Python floats."""
    batch, n, prefix = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(0, 2))
    grid = draw(st.tuples(st.integers(1, 3), st.integers(2, 4)))
    g = rng(draw(SEEDS))
    has_mask = draw(st.booleans()) if masked is None else masked
    return Tokens(
        x=torch.randn(batch, prefix + n, 3, generator=g, dtype=torch.float64),
        size=integers(g, 1, 5, batch, n).float(),
        owner=integers(g, -1, n, batch, grid[0] * grid[1]),
        grid=grid,
        layout=draw(st.sampled_from([None, (1, n)])),
        valid=integers(g, 0, 2, batch, n).bool() if has_mask else None,
    )


def follow(owner, new_of_old):
    """The new token of each patch, by a loop: -1 stays -1, otherwise the new position of its old token."""
    return [
        [-1 if old < 0 else int(new[old]) for old in row] for row, new in zip(owner.tolist(), new_of_old, strict=True)
    ]


def same_prefix(before, after):
    return torch.equal(before.prefix, after.prefix)


def close(actual, expected, tolerance=1e-12):
    return torch.allclose(
        actual.double(), torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )


# Initial tokens


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_initially_each_patch_is_its_own_token(prefix):
    x = torch.randn(2, prefix + 6, 4, generator=rng(0))
    tokens = Tokens.from_sequence(x, (2, 3), prefix)
    assert tokens.x is x
    assert tokens.size.dtype == torch.float32
    assert tokens.size.tolist() == [[1] * 6] * 2
    assert tokens.owner.dtype == torch.int64
    assert tokens.owner.tolist() == [list(range(6))] * 2
    assert (tokens.grid, tokens.layout, tokens.valid) == ((2, 3), (2, 3), None)
    assert (tokens.n_prefix, tokens.n_patches) == (prefix, 6)
    assert torch.equal(tokens.prefix, x[:, :prefix])
    assert torch.equal(tokens.patches, x[:, prefix:])


def test_one_prefix_token_is_the_default():
    assert Tokens.from_sequence(torch.zeros(1, 7, 2), (2, 3)).n_prefix == 1


@pytest.mark.parametrize("length", [6, 8])
def test_a_sequence_that_does_not_match_the_grid_is_rejected(length):
    with pytest.raises(ValueError, match="2x3"):
        Tokens.from_sequence(torch.zeros(1, length, 2), (2, 3), 1)


def test_prefix_and_patches_are_views():
    tokens = Tokens.from_sequence(torch.zeros(2, 7, 4), (2, 3))
    for view in (tokens.prefix, tokens.patches):
        assert view.untyped_storage().data_ptr() == tokens.x.untyped_storage().data_ptr()
    assert tokens.patches.data_ptr() == tokens.x[:, 1:].data_ptr()


def test_tokens_are_immutable():
    tokens = Tokens.from_sequence(torch.zeros(1, 7, 4), (2, 3))
    for field in dataclasses.fields(Tokens):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(tokens, field.name, None)


# Each operation


@QUICK
@given(any_tokens(), SEEDS, st.data())
def test_select_keeps_the_index_in_order_and_drops_the_others(tokens, seed, data):
    batch, n = tokens.size.shape
    count = data.draw(st.integers(1, n))
    index = torch.stack([torch.randperm(n, generator=rng(seed + b))[:count] for b in range(batch)])
    after = tokens.select(index, layout=(1, count))
    assert same_prefix(tokens, after)
    new_of_old = [[-1] * n for _ in range(batch)]
    for b in range(batch):
        for k, i in enumerate(index[b].tolist()):
            new_of_old[b][i] = k
            assert torch.equal(after.patches[b, k], tokens.patches[b, i])
            assert after.size[b, k] == tokens.size[b, i]
            if tokens.valid is not None:
                assert after.valid[b, k] == tokens.valid[b, i]
    assert after.owner.tolist() == follow(tokens.owner, new_of_old)
    assert (after.valid is None) == (tokens.valid is None)
    assert after.layout == (1, count)
    assert tokens.select(index).layout is None
    assert after.grid == tokens.grid


@QUICK
@given(any_tokens(), SEEDS, st.integers(1, 5), st.booleans())
def test_merge_is_the_weighted_mean_of_each_group(tokens, seed, count, own_weights):
    batch, n = tokens.size.shape
    group = integers(rng(seed), -1, count, batch, n)
    weight = torch.rand(batch, n, generator=rng(seed + 1)) + 0.01 if own_weights else None
    after = tokens.merge(group, count, weight, layout=(1, count))
    assert same_prefix(tokens, after)
    used = tokens.size if weight is None else weight
    takes_part = [[tokens.valid is None or bool(tokens.valid[b, i]) for i in range(n)] for b in range(batch)]
    for b in range(batch):
        for k in range(count):
            members = [i for i in range(n) if group[b, i] == k and takes_part[b][i]]
            mass = math.fsum(float(used[b, i]) for i in members)
            for d in range(tokens.x.shape[2]):
                total = math.fsum(float(used[b, i]) * float(tokens.patches[b, i, d]) for i in members)
                assert float(after.patches[b, k, d]) == pytest.approx(total / mass if members else 0, abs=1e-12)
            assert float(after.size[b, k]) == sum(float(tokens.size[b, i]) for i in members)
            if tokens.valid is not None:
                assert bool(after.valid[b, k]) == bool(members)
    new_of_old = [[int(group[b, i]) if takes_part[b][i] else -1 for i in range(n)] for b in range(batch)]
    assert after.owner.tolist() == follow(tokens.owner, new_of_old)
    assert (after.valid is None) == (tokens.valid is None)
    assert after.layout == (1, count)
    assert tokens.merge(group, count, weight).layout is None


@QUICK
@given(any_tokens(), SEEDS, st.integers(1, 4))
def test_mix_combines_all_tokens_and_patches_follow_the_largest_entry(tokens, seed, count):
    batch, n = tokens.size.shape
    g = rng(seed)
    # Some entries are zero or negative, so that some columns have no positive entry.
    matrix = torch.randn(batch, count, n, generator=g, dtype=torch.float64)
    matrix[:, :, 0] = -matrix[:, :, 0].abs()
    after = tokens.mix(matrix, layout=(1, count))
    assert same_prefix(tokens, after)
    new_of_old = [[-1] * n for _ in range(batch)]
    for b in range(batch):
        counts = [i for i in range(n) if tokens.valid is None or tokens.valid[b, i]]
        for k in range(count):
            for d in range(tokens.x.shape[2]):
                total = math.fsum(float(matrix[b, k, i]) * float(tokens.patches[b, i, d]) for i in counts)
                assert float(after.patches[b, k, d]) == pytest.approx(total, abs=1e-12)
            mass = math.fsum(float(matrix[b, k, i]) * float(tokens.size[b, i]) for i in counts)
            assert float(after.size[b, k]) == pytest.approx(mass, rel=1e-5, abs=1e-5)
        for i in counts:
            column = [float(matrix[b, k, i]) for k in range(count)]
            if max(column) > 0:
                new_of_old[b][i] = column.index(max(column))
    assert after.owner.tolist() == follow(tokens.owner, new_of_old)
    assert after.valid is None
    assert after.layout == (1, count)


@QUICK
@given(any_tokens(), SEEDS, st.integers(1, 3))
def test_append_adds_tokens_and_moves_only_the_given_patches(tokens, seed, extra):
    batch, n = tokens.size.shape
    g = rng(seed)
    patches = torch.randn(batch, extra, 3, generator=g, dtype=torch.float64)
    size = integers(g, 1, 9, batch, extra).float()
    moves = integers(g, -1, extra, *tokens.owner.shape)
    after = tokens.append(patches, size, moves)
    assert torch.equal(after.x[:, : tokens.x.shape[1]], tokens.x)
    assert torch.equal(after.patches[:, n:], patches)
    assert after.size.tolist() == [tokens.size[b].tolist() + size[b].tolist() for b in range(batch)]
    assert after.owner.tolist() == [
        [n + to if to >= 0 else stays for to, stays in zip(*row, strict=True)]
        for row in zip(moves.tolist(), tokens.owner.tolist(), strict=True)
    ]
    assert after.n_prefix == tokens.n_prefix
    assert after.layout is None
    if tokens.valid is None:
        assert after.valid is None
    else:
        assert after.valid.tolist() == [tokens.valid[b].tolist() + [True] * extra for b in range(batch)]


@QUICK
@given(any_tokens(), SEEDS, st.booleans(), st.booleans())
def test_replace_changes_only_vectors_and_sizes(tokens, seed, vectors, sizes):
    patches = torch.randn(tokens.patches.shape, generator=rng(seed), dtype=torch.float64) if vectors else None
    size = torch.rand(tokens.size.shape, generator=rng(seed)) if sizes else None
    after = tokens.replace(patches=patches, size=size)
    assert same_prefix(tokens, after)
    assert torch.equal(after.patches, patches if vectors else tokens.patches)
    assert torch.equal(after.size, size if sizes else tokens.size)
    assert after.owner is tokens.owner
    assert after.valid is tokens.valid
    assert (after.grid, after.layout) == (tokens.grid, tokens.layout)


@pytest.mark.parametrize(
    ("name", "shape"), [("patches", (1, 5, 4)), ("patches", (2, 6, 4)), ("size", (1, 5)), ("size", (2, 6))]
)
def test_replace_rejects_a_different_count(name, shape):
    tokens = Tokens.from_sequence(torch.zeros(1, 7, 4), (2, 3))
    with pytest.raises(ValueError, match=f"replace.{name}"):
        tokens.replace(**{name: torch.zeros(shape)})


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
