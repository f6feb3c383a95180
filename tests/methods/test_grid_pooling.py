"""Grid pooling: the choice of the coarser grid, and the mean or maximum of each cell."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from tokbench import Context, Tokens, create

METHOD = create("grid_pooling")
SHAPES = [(h, w) for h in range(1, 15) for w in range(1, 15)]


def coarser(layout: tuple[int, int] | None, keep: int) -> tuple[int, int] | None:
    """The grid that the method announces."""
    return METHOD.layout_after(keep, layout)


def pool(tokens: Tokens, keep: int, reduce: str = "mean") -> Tokens:
    context = Context(depth=0, depths=(0,), stage=0, noise=torch.zeros_like(tokens.size))
    return create("grid_pooling", reduce=reduce)(tokens, keep, context)


def start(h: int, w: int, batch: int = 2, dim: int = 3) -> Tokens:
    generator = torch.Generator().manual_seed(h * 100 + w)
    return Tokens.from_sequence(torch.randn(batch, 1 + h * w, dim, generator=generator, dtype=torch.float64), (h, w))


def cell_of(p: int, shape: tuple[int, int], grid: tuple[int, int]) -> int:
    """The cell of the token at position p in row-major order."""
    row, column = divmod(p, shape[1])
    return row * grid[0] // shape[0] * grid[1] + column * grid[1] // shape[1]


def test_the_grid_is_the_largest_within_keep_and_the_nearest_in_shape():
    for h, w in SHAPES:
        by_cells: dict[int, list[tuple[int, int]]] = {}
        for a in range(1, h + 1):
            for b in range(1, w + 1):
                by_cells.setdefault(a * b, []).append((a, b))

        def skew(grid: tuple[int, int], h: int = h, w: int = w) -> Fraction:
            return abs(Fraction(grid[0], h) - Fraction(grid[1], w))

        best = 1
        for keep in range(1, h * w + 1):
            best = keep if keep in by_cells else best
            grid = coarser((h, w), keep)
            assert grid in by_cells[best]
            assert skew(grid) == min(map(skew, by_cells[best]))


def test_count_and_layout_match_the_grid():
    method = create("grid_pooling")
    for layout in ((14, 14), (7, 9), (1, 5), (3, 1)):
        for keep in range(1, layout[0] * layout[1] + 1):
            grid = coarser(layout, keep)
            assert method.layout_after(keep, layout) == grid
            assert method.count(keep, layout[0] * layout[1], 0, layout) == grid[0] * grid[1] <= keep


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (2, 3), (5, 5), (7, 4), (4, 9), (14, 14)])
def test_every_token_is_in_one_cell_and_no_cell_is_empty(shape: tuple[int, int]):
    n = shape[0] * shape[1]
    tokens = start(*shape, batch=1, dim=1)
    for keep in range(1, n):
        after = pool(tokens, keep)
        grid = coarser(shape, keep)
        assert after.layout == grid
        owner = after.owner[0].tolist()
        assert owner == [cell_of(p, shape, grid) for p in range(n)]
        assert set(owner) == set(range(grid[0] * grid[1]))
        assert after.size.sum() == n
        # Cells are as even as possible: heights and widths differ by at most one.
        sides = [
            [sum(i * new // old == k for i in range(old)) for k in range(new)]
            for old, new in zip(shape, grid, strict=True)
        ]
        assert all(max(side) - min(side) <= 1 for side in sides)


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize(("shape", "keep"), [((4, 4), 4), ((4, 4), 7), ((5, 7), 12), ((7, 5), 34), ((3, 8), 1)])
def test_a_cell_is_replaced_by_its_mean_or_maximum(shape: tuple[int, int], keep: int, reduce: str):
    tokens = start(*shape)
    after, grid = pool(tokens, keep, reduce), coarser(shape, keep)
    assert torch.equal(after.prefix, tokens.prefix)
    for b in range(2):
        for k in range(grid[0] * grid[1]):
            members = [p for p in range(shape[0] * shape[1]) if cell_of(p, shape, grid) == k]
            assert after.size[b, k] == len(members)
            for d in range(3):
                values = [float(tokens.patches[b, p, d]) for p in members]
                expected = max(values) if reduce == "max" else math.fsum(values) / len(values)
                assert float(after.patches[b, k, d]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_a_second_reduction_pools_the_patches_of_the_cells(reduce: str):
    tokens = start(7, 5)
    after = pool(pool(tokens, 20, reduce), 6, reduce)
    first = coarser((7, 5), 20)
    second = coarser(first, 6)
    assert after.layout == second
    for k in range(second[0] * second[1]):
        members = [p for p in range(35) if cell_of(cell_of(p, (7, 5), first), first, second) == k]
        assert [p for p in range(35) if after.owner[0, p] == k] == members
        assert after.size[0, k] == len(members)
        patches: Tensor = tokens.patches[0, members]
        expected = patches.amax(dim=0) if reduce == "max" else patches.sum(dim=0) / len(members)
        assert torch.allclose(after.patches[0, k], expected, rtol=1e-12, atol=1e-12)


def test_the_gradient_of_the_maximum_goes_to_the_largest():
    x = start(4, 4, batch=1).x.clone().requires_grad_()
    after = pool(Tokens.from_sequence(x, (4, 4)), 4, "max")
    (gradient,) = torch.autograd.grad(after.patches.sum(), x)
    for k in range(4):
        members = [p for p in range(16) if after.owner[0, p] == k]
        for d in range(3):
            largest = max(members, key=lambda p, d=d: float(x.detach()[0, 1 + p, d]))
            assert [float(gradient[0, 1 + p, d]) for p in members] == [float(p == largest) for p in members]


def test_tokens_without_a_grid_are_rejected():
    tokens = start(4, 4)
    scattered = tokens.select(torch.tensor([[0, 3, 5, 6, 9]] * 2))
    with pytest.raises(ValueError, match="grid"):
        pool(scattered, 2)
    with pytest.raises(ValueError, match="grid"):
        create("grid_pooling").count(2, 5, 0, None)
