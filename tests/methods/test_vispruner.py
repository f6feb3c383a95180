"""VisPruner against its formulas in plain loops."""

import math

import pytest
import torch
from plain_math import cosine, drawn, merged
from torch import Tensor

from tokbench import Context, Tokens, create
from tokbench.errors import UserError


def context_of(attention: Tensor) -> Context:
    return Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(0), cls_attention=attention)


def selected(x: list[list[float]], a: list[float], keep: int, share: float, step: int) -> list[int]:
    ranked = sorted(range(len(a)), key=lambda i: (-a[i], i))
    important = math.floor(share * keep)
    kept, left = ranked[:important], ranked[important:]
    diverse = keep - important
    if diverse == 0:
        return sorted(kept)
    while len(left) > diverse:
        scored = [i for place, i in enumerate(left) if place % 2 == 0]
        others = [i for place, i in enumerate(left) if place % 2 == 1]
        score = {i: max(cosine(x[i], x[j]) for j in others) for i in scored}
        scored.sort(key=lambda i: -score[i])
        left = scored[min(step, len(left) - diverse) :] + others
    return sorted(kept + left)


def check(tokens: Tokens, attention: Tensor, keep: int, share: float = 0.5, step: int = 8) -> Tokens:
    method = create("vispruner", important=share, step=step)
    after = method(tokens, keep, context_of(attention))
    assert after.n_patches == keep == method.count(keep, tokens.n_patches, 3, None)
    assert torch.equal(after.prefix, tokens.prefix)
    for b in range(tokens.x.shape[0]):
        kept = selected(tokens.patches[b].tolist(), attention[b].tolist(), keep, share, step)
        assert torch.equal(after.patches[b], tokens.patches[b, kept])
        assert torch.equal(after.size[b], tokens.size[b, kept])
        moved = {i: j for j, i in enumerate(kept)}
        assert after.owner[b].tolist() == [moved.get(i, -1) for i in tokens.owner[b].tolist()]
    return after


def attention_of(n: int, seed: int, images: int = 3) -> Tensor:
    return drawn(seed, images, n + 1).softmax(dim=1)[:, 1:]


@pytest.mark.parametrize("step", [1, 3, 8])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.75, 1.0])
def test_important_tokens_are_kept_and_the_others_thinned(share: float, step: int) -> None:
    for n, prefix in [(2, 1), (3, 1), (9, 2), (16, 1), (25, 0)]:
        tokens = Tokens.from_sequence(drawn(n, 3, prefix + n, 5), (1, n), prefix)
        for keep in range(1, n):
            check(tokens, attention_of(n, 40 + n), keep, share, step)


def test_a_second_reduction_treats_tokens_alike_whatever_their_size() -> None:
    first = check(Tokens.from_sequence(drawn(1, 3, 1 + 20, 5), (4, 5)), attention_of(20, 1), 15)
    check(first, attention_of(15, 2), 7, step=2)
    check(merged([3, 1, 2, 1, 4, 1, 1]), attention_of(7, 3), 4, step=1)


def circle(*degrees: float) -> Tokens:
    """One image, with the class token and patch tokens at these angles."""
    points = [[math.cos(math.radians(angle)), math.sin(math.radians(angle))] for angle in degrees]
    return Tokens.from_sequence(torch.tensor([[[0.0, 0.0], *points]], dtype=torch.float64), (1, len(degrees)))


def test_by_hand() -> None:
    tokens = circle(0, 100, 5, 180, 110, 260)
    attention = torch.tensor([[0.3, 0.2, 0.1, 0.08, 0.05, 0.02]])
    # 0° is important. Of 100°, 5°, 180°, 110°, 260°, the first, third and fifth are scored: the nearest of the others
    # are 10°, 70° and 105° away, so 100° is dropped. Then 180° and 5° are scored, 70° and 105° away: 180° is dropped.
    assert check(tokens, attention, 5, share=0.2, step=1).owner.tolist() == [[0, -1, 1, 2, 3, 4]]
    assert check(tokens, attention, 4, share=0.25, step=1).owner.tolist() == [[0, -1, 1, -1, 2, 3]]
    # In one round, the two nearest of 100°, 180° and 260° go: the same here.
    assert check(tokens, attention, 4, share=0.25, step=2).owner.tolist() == [[0, -1, 1, -1, 2, 3]]


def test_of_equal_tokens_the_earlier_one_is_important_and_the_first_scored_one_dropped() -> None:
    tokens = circle(0, 90, 0, 90, 0, 90)
    # 0 and 1 are important. Of the others, 2 and 4 (0°) are scored: both are 90° from 3 and 5.
    after = check(tokens, torch.full((1, 6), 0.1), 5, share=0.4)
    assert after.owner.tolist() == [[0, 1, -1, 2, 3, 4]]


@pytest.mark.parametrize(("share", "step"), [(-0.1, 8), (1.1, 8), (0.5, 0)])
def test_impossible_parameters(share: float, step: int) -> None:
    with pytest.raises(UserError, match="must be"):
        create("vispruner", important=share, step=step)
