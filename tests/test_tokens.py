"""Tokens against plain loops: every vector, size and owner after each operation."""

import dataclasses
import math

import pytest
import torch
from any_tokens import QUICK, SEEDS, any_tokens, integers, rng
from hypothesis import given
from hypothesis import strategies as st

from tokbench import Tokens


def follow(owner, new_of_old):
    """The new token of each patch, by a loop: -1 stays -1, otherwise the new position of its old token."""
    return [
        [-1 if old < 0 else int(new[old]) for old in row] for row, new in zip(owner.tolist(), new_of_old, strict=True)
    ]


def same_prefix(before, after):
    return torch.equal(before.prefix, after.prefix)


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
@given(any_tokens(masked=False), SEEDS)
def test_stay_records_what_merge_does_and_moves_nothing(tokens, seed):
    batch, n = tokens.size.shape
    stays = torch.rand(batch, n, generator=rng(seed)) < 0.6
    place = torch.arange(n).expand(batch, n)
    first = stays.float().argmax(dim=1, keepdim=True).expand(batch, n)
    dropped = (torch.rand(batch, n, generator=rng(seed + 1)) < 0.5) | ~stays.any(dim=1, keepdim=True)
    owner = torch.where(stays, place, torch.where(dropped, -1, first))
    after, merged = tokens.stay(owner, stays.float()), tokens.merge(owner, n)
    assert torch.equal(after.x, tokens.x)
    assert torch.equal(after.presence, stays.float())
    assert torch.equal(after.owner, merged.owner)
    assert torch.equal(after.size, torch.where(stays, merged.size, tokens.size))
    assert after.layout is None
    assert torch.equal(after.select(place.flip(1)).presence, after.presence.flip(1))
    assert torch.equal(after.replace(patches=tokens.patches).presence, after.presence)


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


# Rotary positions


def rotary_tokens(batch=2, grid=(3, 4), seed=0):
    tokens = Tokens.from_sequence(torch.randn(batch, 1 + math.prod(grid), 3, generator=rng(seed)), grid).with_rotary()
    assert torch.equal(tokens.rotary, tokens.owner)
    return tokens


@QUICK
@given(SEEDS)
def test_a_merged_token_has_the_rotary_position_of_its_largest_member(seed):
    tokens = rotary_tokens(seed=seed)
    tokens = dataclasses.replace(tokens, size=integers(rng(seed), 1, 4, 2, 12).float())
    owner = integers(rng(seed + 1), -1, 4, 2, 12)
    merged = tokens.merge(owner, 4)
    for image in range(2):
        for group in range(4):
            members = [i for i in range(12) if int(owner[image, i]) == group]
            if members:
                largest = max(members, key=lambda i: (float(tokens.size[image, i]), -i))
                assert int(merged.rotary[image, group]) == largest


def test_selecting_and_mixing_move_rotary_positions():
    tokens = rotary_tokens()
    index = torch.tensor([[2, 0, 7], [11, 5, 4]])
    assert tokens.select(index).rotary.tolist() == index.tolist()
    matrix = torch.rand(2, 3, 12, generator=rng(1))
    sized = dataclasses.replace(tokens, size=integers(rng(2), 1, 4, 2, 12).float())
    expected = [
        [max(range(12), key=lambda i: float(matrix[b, k, i] * sized.size[b, i])) for k in range(3)] for b in range(2)
    ]
    assert sized.mix(matrix).rotary.tolist() == expected


@QUICK
@given(SEEDS)
def test_an_appended_token_is_at_the_patch_nearest_to_the_middle_of_its_patches(seed):
    tokens = rotary_tokens()
    kept = tokens.select(torch.tensor([[0, 1], [4, 9]]))
    moved = integers(rng(seed), -1, 2, 2, 12)
    after = kept.append(torch.zeros(2, 2, 3), torch.ones(2, 2), moved)
    assert torch.equal(after.rotary[:, :2], kept.rotary)
    for image in range(2):
        for new in range(2):
            patches = [p for p in range(12) if int(moved[image, p]) == new]
            if patches:
                row, column = (sum(f(p) for p in patches) / len(patches) for f in (lambda p: p // 4, lambda p: p % 4))
                distance = {p: (p // 4 - row) ** 2 + (p % 4 - column) ** 2 for p in patches}
                assert distance[int(after.rotary[image, 2 + new])] == pytest.approx(min(distance.values()), abs=1e-5)


def test_tokens_without_rotary_positions_stay_without():
    tokens = Tokens.from_sequence(torch.randn(1, 7, 3), (2, 3))
    merged = tokens.merge(torch.tensor([[0, 0, 1, 1, 2, 2]]), 3)
    assert [part.rotary for part in (tokens, merged, merged.select(torch.tensor([[1]])))] == [None] * 3
