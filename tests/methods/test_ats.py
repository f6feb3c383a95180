"""Adaptive Token Sampling against its formulas in plain loops."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tokbench import Context, DownsampledViT, Geometry, Schedule, Tokens, create

HEADS, WIDTH = 2, 3


def noisy(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def context_of(attention: Tensor, values: Tensor) -> Context:
    return Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(0), cls_attention=attention, values=values)


def expected(attention: list[float], values: list[list[list[float]]], points: int) -> list[int]:
    """The selected tokens; values by head, token, channel."""
    n = len(attention)
    score = [a * math.sqrt(sum(c * c for head in values for c in head[i])) for i, a in enumerate(attention)]
    rising = sorted(range(n), key=lambda i: score[i])
    cdf = [sum(score[j] for j in rising[: k + 1]) / sum(score) for k in range(n)]
    taken = set()
    for k in range(1, points + 1):
        point = (2 * k - 1) / (2 * points)
        taken.add(rising[min(range(n), key=lambda i: abs(cdf[i] - point))])
    return sorted(taken)


def check(tokens: Tokens, attention: Tensor, values: Tensor, keep: int) -> Tokens:
    after = create("ats")(tokens, keep, context_of(attention, values))
    assert after.n_patches == keep
    for b in range(attention.shape[0]):
        present = list(range(tokens.n_patches)) if tokens.valid is None else tokens.valid[b].nonzero()[:, 0].tolist()
        kept = expected(attention[b, present].tolist(), values[b][:, present].tolist(), keep)
        kept = [present[i] for i in kept]
        assert after.valid[b].tolist() == [True] * len(kept) + [False] * (keep - len(kept))
        assert torch.equal(after.patches[b, : len(kept)], tokens.patches[b, kept])
        assert torch.equal(after.size[b, : len(kept)], tokens.size[b, kept])
        moved = {i: j for j, i in enumerate(kept)}
        assert after.owner[b].tolist() == [moved.get(i, -1) for i in tokens.owner[b].tolist()]
    return after


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("peak", [0.5, 3.0])
def test_each_point_selects_the_nearest_token_of_the_distribution(seed: int, peak: float):
    for n in (2, 3, 9, 16):
        attention = (noisy(3, n + 1, seed=seed) * peak).softmax(dim=1)[:, 1:]
        values = noisy(3, HEADS, n, WIDTH, seed=90 + seed)
        tokens = Tokens.from_sequence(noisy(3, 1 + n, 4, seed=20), (1, n))
        for keep in range(1, n):
            check(tokens, attention, values, keep)


def in_order(attention: Tensor, values: Tensor, points: int) -> list[int]:
    """The tokens that the variant `haurum` selects; attention and values of the patches by head."""
    n = attention.shape[1]
    score = (attention * values.square().sum(dim=2).sqrt()).sum(dim=0).tolist()
    cdf = [sum(score[: i + 1]) / (sum(score) + 1e-6) for i in range(n)]
    first, last = 1 / (2 * points), (2 * points - 1) / (2 * points)
    count = max(
        1, math.ceil((last - first) / (1 / points))
    )  # the last point only where rounding puts it inside the range
    midpoints = [(2 * k - 1) / (2 * points) for k in range(1, count + 1)]
    return sorted({min(range(n), key=lambda i: abs(cdf[i] - point)) for point in midpoints})


@pytest.mark.parametrize("seed", range(4))
def test_the_variant_of_haurum_samples_in_the_order_of_the_image(seed: int):
    for n, points in ((9, 2), (9, 5), (16, 3), (16, 12)):
        matrix = noisy(3, HEADS, 1 + n, 1 + n, seed=seed).softmax(dim=3)
        values = noisy(3, HEADS, n, WIDTH, seed=50 + seed)
        tokens = Tokens.from_sequence(noisy(3, 1 + n, 4, seed=20), (1, n))
        context = Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(0), attention=matrix, values=values)
        after = create("ats", variant="haurum")(tokens, points, context)
        for b in range(3):
            wanted = in_order(matrix[b, :, 0, 1:], values[b], points)
            assert [i for i in range(n) if after.owner[b, i] >= 0] == wanted
            assert torch.equal(after.patches[b, : len(wanted)], tokens.patches[b, wanted])


@pytest.mark.parametrize("seed", range(4))
def test_padding_is_never_selected(seed: int):
    n, keep = 12, 7
    tokens = Tokens.from_sequence(noisy(4, 1 + n, 4, seed=seed), (1, n))
    first = check(tokens, (noisy(4, n, seed=seed) * 3).softmax(dim=1), noisy(4, HEADS, n, WIDTH, seed=seed), 9)
    assert not bool(first.valid.all())
    attention = noisy(4, 9, seed=40 + seed).exp()  # padding has scores here, since no model has masked it
    values = noisy(4, HEADS, 9, WIDTH, seed=60 + seed)
    second = check(first, attention, values, keep)
    # Padding has no influence: other vectors, scores and values there change nothing.
    other = create("ats")(
        first, keep, context_of(attention.where(first.valid, 5.0), values.where(first.valid[:, None, :, None], -9.0))
    )
    assert torch.equal(other.owner, second.owner)
    assert torch.equal(other.valid, second.valid)


def test_an_image_with_concentrated_significance_keeps_fewer_tokens():
    n, keep = 20, 15
    even, peaked = torch.full((n,), 1.0), torch.full((n,), 1e-6)
    peaked[[3, 11]] = torch.tensor([2.0, 1.0])
    tokens = Tokens.from_sequence(noisy(2, 1 + n, 4, seed=0), (4, 5))
    after = create("ats")(tokens, keep, context_of(torch.stack([even, peaked]), torch.ones(2, HEADS, n, WIDTH)))
    counts = after.valid.sum(dim=1).tolist()
    assert counts[0] == keep
    assert counts[1] <= 4  # the two, and those at the foot of each step
    assert after.owner[1, 3] >= 0
    assert after.owner[1, 11] >= 0


def test_the_norm_of_values_is_over_all_heads():
    # |v| is 5 for token 0 and √18 for token 1; summed head by head it would be 5 and 6, and the order turned.
    values = torch.zeros(1, HEADS, 2, WIDTH)
    values[0, 0, :, 0], values[0, 1, :, 0] = torch.tensor([5.0, 3.0]), torch.tensor([0.0, 3.0])
    tokens = Tokens.from_sequence(noisy(1, 3, 4, seed=0), (1, 2))
    after = create("ats")(tokens, 1, context_of(torch.full((1, 2), 0.1), values))
    # Rising: token 1 (cdf 0.459), token 0 (cdf 1); the one point, 0.5, is nearer to token 1.
    assert after.owner.tolist() == [[-1, 0]]


def test_a_model_gives_the_same_result_alone_and_in_a_batch(tiny_vit: Any):
    model = DownsampledViT(tiny_vit(std=0.5), create("ats"), Schedule.stages(0.6, (1, 2, 3))).eval()
    images = noisy(6, 3, 32, 32, seed=7).float()
    counts: list[int] = []
    with torch.no_grad():
        together = model(images, observe=lambda _, tokens: counts.append(tokens.n_patches))
        alone = torch.cat([model(images[b : b + 1]) for b in range(6)])
    assert counts[1] <= 10
    assert counts[3] <= 4
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_the_number_of_points_does_not_depend_on_the_batch():
    n = 12
    method = create("ats")
    method.setup(Geometry(dim=4, heads=HEADS, depths=(3, 6), grid=(1, n), counts=(9, 7)))
    tokens = Tokens.from_sequence(noisy(1, 1 + n, 4, seed=1), (1, n))
    first = method(tokens, 9, context_of(noisy(1, n, seed=2).exp(), noisy(1, HEADS, n, WIDTH, seed=3)))
    first = dataclasses.replace(
        first.select(first.valid.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :5]), valid=None
    )
    attention, values = noisy(1, 5, seed=4).exp(), noisy(1, HEADS, 5, WIDTH, seed=5)
    context = Context(depth=6, depths=(3, 6), stage=1, noise=torch.zeros(0), cls_attention=attention, values=values)
    after = method(first, 4, context)  # 4 of the 5 are asked for, by 7 points
    assert after.n_patches == method.count(4, 5, 6, None) == 5
    kept = expected(attention[0].tolist(), values[0].tolist(), 7)
    assert after.valid[0].sum() == len(kept)
    assert torch.equal(after.patches[0, : len(kept)], first.patches[0, kept])
