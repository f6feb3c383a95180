"""The baselines that select by score or at random, against plain loops."""

import itertools
from collections import Counter

import pytest
import torch
from method_calls import DIM, context_of, noisy
from scipy import stats

from tokbench import Context, Tokens, create
from tokbench.vit.noise import uniform


def scored(scores: list[list[float]], field: str, seed: int = 0) -> tuple[Tokens, Context]:
    score = torch.tensor(scores)
    batch, n = score.shape
    noise = uniform(seed, torch.arange(batch), 0, n)
    context = Context(depth=0, depths=(0,), stage=0, noise=noise, **{field: score})
    return Tokens.from_sequence(noisy(batch, 1 + n, 3), (1, n)), context


@pytest.mark.parametrize(("score", "field"), [("received", "received"), ("cls", "cls_attention")])
def test_score_pruning_keeps_the_highest_scores_in_order(score: str, field: str):
    scores = noisy(20, 9, seed=4).abs().tolist()
    tokens, context = scored(scores, field)
    method = create("score_pruning", score=score)
    assert method.needs == {field}
    for keep in range(1, 9):
        after = method(tokens, keep, context)
        for b, row in enumerate(scores):
            ranked = sorted(range(9), key=lambda i: -row[i])
            best = sorted(ranked[:keep])
            assert [after.owner[b].tolist().index(j) for j in range(keep)] == best
            assert torch.equal(after.patches[b], tokens.patches[b, best])


def test_random_selection_keeps_every_subset_equally_often():
    method, batch = create("random_selection"), 6000
    tokens = Tokens.from_sequence(torch.zeros(batch, 6, 1), (1, 5))
    for keep in (1, 2, 4):
        context = Context(depth=3, depths=(3,), stage=0, noise=uniform(7, torch.arange(batch), 3, 5))
        after = method(tokens, keep, context)
        assert ((after.owner >= 0).sum(dim=1) == keep).all()
        seen = Counter(tuple(i for i in range(5) if row[i] >= 0) for row in after.owner.tolist())
        subsets = list(itertools.combinations(range(5), keep))
        assert set(seen) == set(subsets)
        assert stats.chisquare([seen[subset] for subset in subsets]).pvalue > 0.001


@pytest.mark.parametrize("name", ["random_selection", "importance_sampling"])
def test_a_random_subset_keeps_its_order(name: str):
    method = create(name)
    tokens = Tokens.from_sequence(noisy(50, 10, 2), (3, 3))
    after = method(tokens, 5, context_of(noisy(50, 10, DIM), 9, frozenset({"received"})))
    for b, row in enumerate(after.owner.tolist()):
        kept = [i for i in range(9) if row[i] >= 0]
        assert [row[i] for i in kept] == list(range(5))
        assert torch.equal(after.patches[b], tokens.patches[b, kept])


@pytest.mark.parametrize(("score", "field"), [("received", "received"), ("cls", "cls_attention")])
def test_importance_sampling_draws_one_token_in_proportion_to_its_score(score: str, field: str):
    weights = [0.5, 3.0, 1.0, 1.5, 4.0]
    tokens, context = scored([weights] * 8000, field, seed=11)
    method = create("importance_sampling", score=score)
    assert method.needs == {field}
    drawn = Counter(row.index(0) for row in method(tokens, 1, context).owner.tolist())
    assert stats.chisquare([drawn[i] for i in range(5)], [8000 * w / sum(weights) for w in weights]).pvalue > 0.001


def test_importance_sampling_draws_pairs_without_replacement():
    weights = [0.5, 3.0, 1.0, 1.5]
    tokens, context = scored([weights] * 8000, "received", seed=12)
    after = create("importance_sampling")(tokens, 2, context)
    assert ((after.owner >= 0).sum(dim=1) == 2).all()
    drawn = Counter(tuple(i for i in range(4) if row[i] >= 0) for row in after.owner.tolist())
    total = sum(weights)
    chance = {
        (i, j): weights[i] / total * weights[j] / (total - weights[i])
        + weights[j] / total * weights[i] / (total - weights[j])
        for i, j in itertools.combinations(range(4), 2)
    }
    assert sum(chance.values()) == pytest.approx(1)
    assert stats.chisquare([drawn[pair] for pair in chance], [8000 * p for p in chance.values()]).pvalue > 0.001


def test_importance_sampling_draws_tokens_with_score_zero_last():
    tokens, context = scored([[0.0, 1.0, 0.0, 2.0, 0.0]] * 200, "received")
    method = create("importance_sampling")
    assert ((method(tokens, 2, context).owner >= 0) == torch.tensor([False, True, False, True, False])).all()
    after = method(tokens, 3, context)
    assert ((after.owner >= 0).sum(dim=1) == 3).all()
    assert (after.owner[:, [1, 3]] >= 0).all()
