"""DivPrune against its formulas in plain loops."""

import math

import pytest
import torch
from plain_math import at, cosine, drawn, merged

from tokbench import Tokens, create


def farthest(x: list[list[float]], keep: int) -> list[int]:
    """The chosen tokens, in the order of choice."""
    n = len(x)
    d = [[1 - cosine(a, b) for b in x] for a in x]
    alone = [min((d[i][j] for j in range(n) if j != i), default=0.0) for i in range(n)]
    chosen = [max(range(n), key=lambda i: (alone[i], -i))]
    while len(chosen) < keep:
        left = [i for i in range(n) if i not in chosen]
        chosen.append(max(left, key=lambda i: (min(d[i][j] for j in chosen), -i)))
    return chosen


def check(tokens: Tokens, keep: int) -> Tokens:
    method = create("divprune")
    after = method(tokens, keep, at(0))
    assert after.n_patches == keep == method.count(keep, tokens.n_patches, 1, None)
    assert torch.equal(after.prefix, tokens.prefix)
    for b in range(tokens.x.shape[0]):
        kept = sorted(farthest(tokens.patches[b].tolist(), keep))
        assert torch.equal(after.patches[b], tokens.patches[b, kept])
        assert torch.equal(after.size[b], tokens.size[b, kept])
        moved = {i: j for j, i in enumerate(kept)}
        assert after.owner[b].tolist() == [moved.get(i, -1) for i in tokens.owner[b].tolist()]
    return after


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("n", [2, 3, 9, 16])
def test_each_choice_is_the_token_farthest_from_those_chosen(n: int, prefix: int) -> None:
    tokens = Tokens.from_sequence(drawn(n + prefix, 3, prefix + n, 5), (1, n), prefix)
    for keep in range(1, n):
        check(tokens, keep)


def test_a_second_reduction_chooses_among_the_tokens_left() -> None:
    tokens = check(Tokens.from_sequence(drawn(1, 3, 1 + 12, 5), (3, 4)), 8)
    assert check(tokens, 5).size.tolist() == [[1.0] * 5] * 3
    check(merged([3, 1, 2, 1, 4, 1, 1]), 4)


def test_the_length_of_a_vector_does_not_count() -> None:
    x = drawn(2, 2, 1 + 10, 4)
    longer = x * torch.linspace(0.01, 90, 11, dtype=x.dtype)[:, None]
    kept = check(Tokens.from_sequence(x, (2, 5)), 4)
    assert torch.equal(check(Tokens.from_sequence(longer, (2, 5)), 4).owner, kept.owner)


def test_by_hand() -> None:
    # Angles 0°, 10°, 90°, 170°, 240°: the nearest neighbours are at 10°, 10°, 80°, 70°, 70°, so 90° is first. The next
    # are 240° (150° away) and 0° (90° away); of the others, 170° (70° away) comes before 10° (10° away).
    angles = [math.radians(angle) for angle in (0, 10, 90, 170, 240)]
    x = torch.tensor([[[0.0, 0.0]] + [[math.cos(a), math.sin(a)] for a in angles]], dtype=torch.float64)
    tokens = Tokens.from_sequence(x, (1, 5))
    kept = {keep: check(tokens, keep).owner[0].ge(0).nonzero()[:, 0].tolist() for keep in range(1, 5)}
    assert kept == {1: [2], 2: [2, 4], 3: [0, 2, 4], 4: [0, 2, 3, 4]}


def test_of_equally_far_tokens_the_earlier_one_is_chosen() -> None:
    x = torch.tensor([[[0.0, 0.0], [1, 0], [0, 1], [-1, 0], [0, -1]]], dtype=torch.float64)
    tokens = Tokens.from_sequence(x, (2, 2))
    assert [check(tokens, keep).owner[0].tolist() for keep in (1, 2, 3)] == [
        [0, -1, -1, -1],
        [0, -1, 1, -1],
        [0, 1, 2, -1],
    ]


def test_no_token_is_chosen_twice_if_all_are_equal() -> None:
    tokens = Tokens.from_sequence(torch.ones(2, 1 + 6, 3), (2, 3))
    after = create("divprune")(tokens, 4, at(0))
    assert after.size.tolist() == [[1.0] * 4] * 2
    assert (after.owner >= 0).sum(dim=1).tolist() == [4, 4]
