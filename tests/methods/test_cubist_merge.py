"""CubistMerge against its rule in plain loops: the grid that is left, the groups, and their values."""

import math

import pytest
import torch
from plain_math import cosine

from tokbench import Context, Tokens, create

METHOD = create("cubist_merge")
Line = list[list[float]]
SHAPES = [(1, 2), (2, 1), (1, 7), (2, 2), (3, 4), (5, 5), (6, 3), (7, 8)]


def merge(tokens: Tokens, keep: int) -> Tokens:
    return METHOD(tokens, keep, Context(depth=1, depths=(1,), stage=0, noise=torch.zeros(0)))


def start(h: int, w: int, prefix: int = 1, dim: int = 4) -> Tokens:
    generator = torch.Generator().manual_seed(h * 100 + w)
    x = torch.randn(2, prefix + h * w, dim, generator=generator, dtype=torch.float64)
    return Tokens.from_sequence(x, (h, w), prefix)


def grid_left(layout: tuple[int, int], keep: int) -> tuple[int, int]:
    """Row and column lengths shrink in turn, down to half, until at most `keep` tokens are left."""
    h, w = layout
    for loss in range(1, max(layout) + 1):
        for side in (1, 0):
            if h * w > keep and loss <= layout[side] // 2:
                h, w = (h, w - 1) if side else (h - 1, w)
    return h, w


def merged_line(line: Line, length: int) -> tuple[Line, list[int]]:
    """One line after its merges, and the new position of each of its tokens."""
    target: dict[int, int] = {}
    best: dict[int, float] = {}
    for i in range(1, len(line), 2):
        neighbours = [j for j in (i - 1, i + 1) if j < len(line)]
        target[i] = max(neighbours, key=lambda j, i=i: cosine(line[i], line[j]))  # the first of equal ones
        best[i] = cosine(line[i], line[target[i]])
    sources = sorted(best, key=lambda i: -best[i])[: len(line) - length]
    kept = [i for i in range(len(line)) if i not in sources]
    values = []
    for j in kept:
        members = [j] + [i for i in sources if target[i] == j]
        values.append([max((line[m][c] for m in sorted(members)), key=abs) for c in range(len(line[j]))])
    return values, [kept.index(target[i] if i in sources else i) for i in range(len(line))]


def merged_grid(grid: list[Line], h: int, w: int) -> tuple[list[Line], list[list[tuple[int, int]]]]:
    """A grid after its rows and then its columns are shortened, and the new place of each token."""
    rows = [merged_line(row, w) for row in grid]
    columns = [merged_line([row[0][c] for row in rows], h) for c in range(w)]
    values = [[columns[c][0][r] for c in range(w)] for r in range(h)]
    places = [[(columns[c][1][i], c) for c in rows[i][1]] for i in range(len(grid))]
    return values, places


def test_rows_and_columns_are_shortened_in_turn_to_half_at_most():
    assert [METHOD.layout_after(keep, (14, 14)) for keep in (195, 169, 168, 144, 137, 50, 49, 1)] == [
        (14, 13),
        (13, 13),
        (13, 12),
        (12, 12),
        (12, 11),
        (7, 7),
        (7, 7),
        (7, 7),
    ]
    assert METHOD.layout_after(6, (1, 9)) == (1, 6)
    assert METHOD.layout_after(1, (9, 1)) == (5, 1)
    for layout in SHAPES:
        for keep in range(1, layout[0] * layout[1]):
            assert METHOD.layout_after(keep, layout) == grid_left(layout, keep)
            assert METHOD.count(keep, layout[0] * layout[1], 1, layout) == math.prod(grid_left(layout, keep))


@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_most_similar_neighbours_are_merged_row_by_row_and_column_by_column(shape: tuple[int, int], prefix: int):
    tokens = start(*shape, prefix)
    for keep in range(1, shape[0] * shape[1]):
        h, w = grid_left(shape, keep)
        after = merge(tokens, keep)
        assert after.layout == (h, w)
        assert torch.equal(after.prefix, tokens.prefix)
        for b in range(2):
            values, places = merged_grid(tokens.patches[b].view(*shape, -1).tolist(), h, w)
            assert after.patches[b].tolist() == [value for row in values for value in row]
            owners = [r * w + c for row in places for r, c in row]
            assert after.owner[b].tolist() == owners
            assert after.size[b].tolist() == [owners.count(k) for k in range(h * w)]


def test_a_second_reduction_starts_from_the_grid_of_the_first():
    tokens = start(6, 6)
    first = merge(tokens, 25)
    second = merge(first, 12)
    assert (first.layout, second.layout) == ((5, 5), (4, 3))
    for b in range(2):
        values, places = merged_grid(first.patches[b].view(5, 5, -1).tolist(), 4, 3)
        assert second.patches[b].tolist() == [value for row in values for value in row]
        moved = [r * 3 + c for row in places for r, c in row]
        assert second.owner[b].tolist() == [moved[k] for k in first.owner[b].tolist()]
    assert (second.size.sum(dim=1) == 36).all()


def test_by_hand():
    # The similarities of neighbours are 0, 1, 0.6 and 0.96, so both sources, at 1 and 3, go to the right.
    patches = [[0.0, 1.0], [5.0, 0.0], [2.0, 0.0], [3.0, 4.0], [4.0, 3.0]]
    tokens = Tokens.from_sequence(torch.tensor([[[0.0, 0.0], *patches]]), (1, 5))
    assert merge(tokens, 4).patches.tolist() == [[[0.0, 1.0], [5.0, 0.0], [3.0, 4.0], [4.0, 3.0]]]
    assert merge(tokens, 3).patches.tolist() == [[[0.0, 1.0], [5.0, 0.0], [4.0, 4.0]]]
    # Both go to the middle, and the values of largest magnitude keep their signs.
    patches = [[1.0, 0.0], [-1.0, -2.0], [-4.0, 0.5], [-2.0, 1.0], [3.0, 4.0]]
    after = merge(Tokens.from_sequence(torch.tensor([[[0.0, 0.0], *patches]]), (1, 5)), 3)
    assert after.owner.tolist() == [[0, 1, 1, 1, 2]]
    assert after.patches.tolist() == [[[1.0, 0.0], [-4.0, -2.0], [3.0, 4.0]]]


def test_ties_go_to_the_left():
    equal = Tokens.from_sequence(torch.ones(1, 7, 2), (1, 6))
    assert merge(equal, 5).owner.tolist() == [[0, 0, 1, 2, 3, 4]]
    assert merge(equal, 3).owner.tolist() == [[0, 0, 1, 1, 2, 2]]
    opposite = Tokens.from_sequence(torch.tensor([[[0.0], [2.0], [-2.0]]]), (1, 2))
    assert merge(opposite, 1).patches.tolist() == [[[2.0]]]


def test_tokens_without_a_grid_are_rejected():
    scattered = start(4, 4).select(torch.tensor([[0, 3, 5, 6, 9]] * 2))
    with pytest.raises(ValueError, match="grid"):
        merge(scattered, 2)
    with pytest.raises(ValueError, match="grid"):
        METHOD.count(2, 5, 1, None)
