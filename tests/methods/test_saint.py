"""SAINT against its formulas in plain loops."""

import math
from typing import Any

import pytest
import torch
from plain_math import context_of, cosine, drawn, merged, noisy

from tokbench import DownsampledViT, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.measure.macs import count_macs
from tokbench.schedule import planned_counts


def scores(keys: list[list[float]], threshold: float, gamma: float) -> tuple[list[int], list[float]]:
    """The number of neighbours and the score of tokens 0, 2, 4..."""
    counts, values = [], []
    for i in range(0, len(keys), 2):
        similar = [cosine(keys[i], keys[j]) for j in range(1, len(keys), 2)]
        near = [s for s in similar if s >= threshold]
        counts.append(len(near))
        if near:
            values.append(len(near) * math.exp(gamma * (sum(near) / len(near) - threshold)))
        else:
            values.append(sum(similar) / len(similar) if similar else 0.0)
    return counts, values


def expected(keys: list[list[float]], keep: int | None, threshold: float, gamma: float, votes: int) -> list[int]:
    """The tokens left, in the order of the result; K is None where the votes decide."""
    counts, values = scores(keys, threshold, gamma)
    ranked = sorted(range(len(values)), key=lambda e: (-values[e], e))
    most = len(keys) - len(keys) // 2
    drop = sum(c >= votes for c in counts) if keep is None else min(len(keys) - keep, most)
    return [2 * e for e in ranked[drop:]] + list(range(1, len(keys), 2))


def check_selected(tokens: Tokens, after: Tokens, b: int, left: list[int]) -> None:
    assert torch.equal(after.patches[b, : len(left)], tokens.patches[b, left])
    assert torch.equal(after.size[b, : len(left)], tokens.size[b, left])
    moved = {i: k for k, i in enumerate(left)}
    assert after.owner[b].tolist() == [moved.get(i, -1) for i in tokens.owner[b].tolist()]


@pytest.mark.parametrize(("threshold", "gamma"), [(0.75, 10.0), (0.2, 10.0), (-0.5, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("prefix", [1, 2])
def test_the_most_similar_even_tokens_are_dropped(prefix: int, threshold: float, gamma: float):
    method = create("saint", threshold=threshold, gamma=gamma)
    for n in (2, 3, 8, 13):
        tokens = Tokens.from_sequence(drawn(n, 3, prefix + n, 4), (1, n), prefix)
        keys = drawn(70 + n, 3, n, 3)
        for keep in range(1, n):
            after = method(tokens, keep, context_of(keys, 3))
            assert after.valid is None
            assert after.n_patches == method.count(keep, n, 3, (1, n)) == max(keep, n // 2)
            assert torch.equal(after.prefix, tokens.prefix)
            for b in range(3):
                check_selected(tokens, after, b, expected(keys[b].tolist(), keep, threshold, gamma, 5))


@pytest.mark.parametrize("votes", [1, 2, 3])
def test_each_image_drops_as_many_as_its_tokens_vote(votes: int):
    method = create("saint", rate="votes", votes=votes, threshold=0.3)
    assert method.adaptive
    seen = set()
    for n in (1, 2, 3, 8, 13):
        tokens = Tokens.from_sequence(drawn(n, 4, 1 + n, 4), (1, n))
        keys = drawn(80 + n, 4, n, 3)
        after = method(tokens, 1, context_of(keys, 3))
        assert after.n_patches == method.count(1, n, 3, (1, n)) == n
        for b in range(4):
            left = expected(keys[b].tolist(), None, 0.3, 10.0, votes)
            check_selected(tokens, after, b, left)
            assert after.valid[b].tolist() == [True] * len(left) + [False] * (n - len(left))
            seen.add((n, n - len(left)))
    assert len({dropped for n, dropped in seen if n == 13}) > 1  # the number differs between images


def test_padding_neither_votes_nor_is_voted_on():
    method = create("saint", rate="votes", votes=2, threshold=0.3)
    n = 13
    tokens = Tokens.from_sequence(drawn(1, 4, 1 + n, 4), (1, n))
    first = method(tokens, 1, context_of(drawn(2, 4, n, 3), 3))
    assert not bool(first.valid.all())
    keys = drawn(3, 4, n, 3)
    second = method(first, 1, context_of(keys, 3))
    for b in range(4):
        present = int(first.valid[b].sum())
        left = expected(keys[b, :present].tolist(), None, 0.3, 10.0, 2)
        check_selected(first, second, b, left)
        assert second.valid[b].tolist() == [True] * len(left) + [False] * (n - len(left))
    other = method(first, 1, context_of(keys.where(first.valid[..., None], 4.0), 3))
    assert torch.equal(other.owner, second.owner)


def test_merged_tokens_keep_their_sizes():
    tokens = merged([3, 1, 2, 5, 1, 1])
    keys = drawn(4, 3, 6, 3)
    for keep in range(3, 6):
        after = create("saint")(tokens, keep, context_of(keys, 3))
        for b in range(3):
            check_selected(tokens, after, b, expected(keys[b].tolist(), keep, 0.75, 10.0, 5))


def test_a_case_by_hand():
    # Even tokens 0, 2, 4 point at 0, 90 and 40 degrees, odd tokens 1, 3, 5 at 0, 30 and 60: with τ = cos 35, token 0
    # has two neighbours, token 2 one (at 30 degrees) and token 4 two, which are nearer on average than those of token 0
    # by their cosines: (cos 10 + cos 20) / 2 > (1 + cos 30) / 2.
    angles = torch.tensor([0.0, 0, 90, 30, 40, 60], dtype=torch.float64).deg2rad()
    keys = torch.stack([angles.cos(), angles.sin()], dim=1)[None]
    tokens = Tokens.from_sequence(drawn(5, 1, 7, 2), (2, 3))
    threshold = math.cos(math.radians(35))
    owners = {
        keep: create("saint", threshold=threshold)(tokens, keep, context_of(keys, 3)).owner.tolist()[0]
        for keep in (5, 4, 3, 1)
    }
    assert owners[5] == [0, 2, 1, 3, -1, 4]
    assert owners[4] == [-1, 1, 0, 2, -1, 3]
    assert owners[3] == owners[1] == [-1, 0, -1, 1, -1, 2]
    by_votes = create("saint", rate="votes", votes=2, threshold=threshold)(tokens, 1, context_of(keys, 3))
    assert by_votes.owner.tolist()[0] == owners[4]


def test_of_equal_scores_the_earlier_token_is_dropped():
    tokens = Tokens.from_sequence(drawn(6, 1, 7, 2), (2, 3))
    after = create("saint")(tokens, 4, context_of(torch.ones(1, 6, 2), 3))
    assert after.owner.tolist() == [[-1, 1, -1, 2, 0, 3]]


def test_a_model_gives_the_same_result_alone_and_in_a_batch(tiny_vit: Any):
    method = create("saint", rate="votes", votes=2, threshold=0.1)
    model = DownsampledViT(tiny_vit(std=0.5), method, Schedule.stages(0.6, (1, 2, 3))).eval()
    images = noisy(6, 3, 32, 32, seed=7)
    counts: list[int] = []
    with torch.no_grad():
        together = model(images, observe=lambda _, tokens: counts.append(tokens.n_patches))
        alone = torch.cat([model(images[b : b + 1]) for b in range(6)])
    assert counts[3] < counts[0]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_the_published_schedule_is_the_first_half_of_the_blocks():
    method = create("saint")
    schedule = Schedule.parse(method.schedule, 0.9)
    assert schedule.depths(12) == (0, 1, 2, 3, 4, 5)
    assert planned_counts(schedule, method, 12, (14, 14))[0] == 177


@pytest.mark.parametrize("params", [{"threshold": 1.5}, {"threshold": -2.0}, {"votes": 0}, {"rate": "batch"}])
def test_invalid_parameters_are_rejected(params: dict[str, Any]):
    with pytest.raises(UserError):
        create("saint", **params)


def test_its_macs_are_counted(tiny_vit: Any):
    model = DownsampledViT(tiny_vit(), create("saint"), Schedule.stages(0.5, (1, 2))).eval()
    macs = count_macs(model, torch.zeros(1, 3, 32, 32))
    assert macs.ledger.leaving == (16, 8, 4, 4)
    width = 32 // model.vit.blocks[0].attn.num_heads  # of the keys, the mean over heads
    assert macs.method > (8 * 8 + 4 * 4) * width
