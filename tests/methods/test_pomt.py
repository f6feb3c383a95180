"""Prune One More Token against its formulas in plain loops."""

import math

import pytest
import torch
from plain_math import drawn, merged, softmax
from torch import Tensor

from tokbench import Context, Schedule, Tokens, create

HEADS, WIDTH = 2, 3


def context_of(attention: Tensor, values: Tensor) -> Context:
    return Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(0), attention=attention, values=values)


def scores(attention: list[list[list[float]]], values: list[list[list[float]]], prefix: int) -> list[float]:
    """Of each patch token; attention by head, query and key, values by head, token and channel."""
    length, n = len(attention[0]), len(values[0])
    attended = [
        sum(max(head[q][i] for head in attention) for q in range(prefix, length)) for i in range(prefix, length)
    ]
    magnitude = softmax([sum(max(head[i][d] for head in values) for d in range(WIDTH)) for i in range(n)])
    return [u / max(attended) + m for u, m in zip(attended, magnitude, strict=True)]


def check(tokens: Tokens, attention: Tensor, values: Tensor, keep: int) -> Tokens:
    method = create("pomt")
    after = method(tokens, keep, context_of(attention, values))
    n = tokens.n_patches
    assert after.n_patches == keep == method.count(keep, n, 3, None)
    assert torch.equal(after.prefix, tokens.prefix)
    for b in range(tokens.x.shape[0]):
        score = scores(attention[b].tolist(), values[b].tolist(), tokens.n_prefix)
        kept = sorted(sorted(range(n), key=lambda i: (-score[i], i))[: keep - 1])
        others = [i for i in range(n) if i not in kept]
        assert torch.equal(after.patches[b, :-1], tokens.patches[b, kept])
        x = tokens.patches[b].tolist()
        mean = [sum(x[i][d] for i in others) / len(others) for d in range(len(x[0]))]
        torch.testing.assert_close(after.patches[b, -1], torch.tensor(mean, dtype=torch.float64))
        size = tokens.size[b].tolist()
        assert after.size[b].tolist() == [size[i] for i in kept] + [sum(size[i] for i in others)]
        moved = {-1: -1, **dict.fromkeys(others, keep - 1), **{i: j for j, i in enumerate(kept)}}
        assert after.owner[b].tolist() == [moved[i] for i in tokens.owner[b].tolist()]
    return after


def block(n: int, prefix: int, seed: int, images: int = 3) -> tuple[Tensor, Tensor]:
    """Attention and values; scaled so that both parts of the score change the choice."""
    attention = (2 * drawn(seed, images, HEADS, prefix + n, prefix + n)).softmax(dim=3)
    return attention, drawn(500 + seed, images, HEADS, n, WIDTH)


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("n", [2, 3, 9, 16])
def test_the_best_are_kept_and_the_others_become_their_mean(n: int, prefix: int) -> None:
    tokens = Tokens.from_sequence(drawn(n, 3, prefix + n, 5), (1, n), prefix)
    for keep in range(1, n):
        check(tokens, *block(n, prefix, 7 * n + keep), keep)


def test_a_second_reduction_treats_the_mean_like_any_other_token() -> None:
    first = check(Tokens.from_sequence(drawn(1, 3, 1 + 12, 5), (3, 4)), *block(12, 1, 1), 8)
    second = check(first, *block(8, 1, 2), 3)
    assert second.size.sum(dim=1).tolist() == [12] * 3
    check(merged([3, 1, 2, 1, 4, 1, 1]), *block(7, 1, 3), 4)


def test_dropped_patches_stay_dropped() -> None:
    tokens = Tokens.from_sequence(drawn(1, 1, 7, 5), (1, 6)).select(torch.tensor([[0, 2, 4, 5]]))
    after = check(tokens, *block(4, 1, 4, images=1), 2)
    assert after.owner[0, [1, 3]].tolist() == [-1, -1]


def test_by_hand() -> None:
    # Sums over the queries of the largest attention: 0.9, 1.2, 0.6 of 1.2. Sums over the channels of the largest
    # values: 0, ln 2, ln 5, so the softmax is 1/8, 2/8, 5/8. The scores are 0.875, 1.25, 1.125.
    attention = torch.zeros(1, HEADS, 4, 4, dtype=torch.float64)
    attention[0, 0, 1:, 1:] = torch.tensor([[0.3, 0.4, 0.2]] * 3)
    attention[0, 1, 1:, 1:] = torch.tensor([[0.2, 0.1, 0.2]] * 3)
    attention[0, :, 0, 1] = 1  # the class token's row does not count
    values = torch.full((1, HEADS, 3, WIDTH), -9.0, dtype=torch.float64)
    values[0, 0, :, 0] = torch.tensor([1.0, math.log(2), math.log(5)])
    values[0, 1, :, 1:] = torch.tensor([[-0.5, -0.5], [0.0, 0.0], [0.0, 0.0]])
    tokens = Tokens.from_sequence(torch.tensor([[[0.0], [1.0], [3.0], [10.0]]], dtype=torch.float64), (1, 3))
    assert check(tokens, attention, values, 2).patches[0, :, 0].tolist() == [3, (1 + 10) / 2]
    assert check(tokens, attention, values * 0, 2).patches[0, :, 0].tolist() == [3, (1 + 10) / 2]
    by_values = check(tokens, attention * 0 + 0.1, values, 2)
    assert by_values.patches[0, :, 0].tolist() == [10, 2]


def test_ties_go_to_the_earlier_token() -> None:
    tokens = Tokens.from_sequence(drawn(1, 2, 7, 3), (2, 3))
    after = check(tokens, torch.full((2, HEADS, 7, 7), 1 / 7), torch.zeros(2, HEADS, 6, WIDTH), 4)
    assert after.owner.tolist() == [[0, 1, 2, 3, 3, 3]] * 2


def test_the_score_of_an_image_does_not_depend_on_the_others() -> None:
    tokens = Tokens.from_sequence(drawn(1, 2, 10, 5), (3, 3))
    attention, values = block(9, 1, 5, images=2)
    attention[1] *= 40  # as a larger maximum of the batch would
    together = check(tokens, attention, values, 4)
    alone = check(Tokens.from_sequence(tokens.x[:1], (3, 3)), attention[:1], values[:1], 4)
    assert torch.equal(together.owner[:1], alone.owner)


def test_the_published_schedule_acts_once() -> None:
    assert Schedule.parse(create("pomt").schedule, 0.5).depths(12) == (3,)
