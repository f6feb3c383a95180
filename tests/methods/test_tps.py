"""TPS against its formulas in plain loops."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from plain_math import at, cosine, drawn, kept_probabilities, merged, predictor_weights
from sure_predictors import POOLINGS, sure, trained_and_measured
from torch import Tensor

from tokbench import Context, DownsampledViT, Downsampler, Geometry, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.measure.macs import count_macs

DIM = 8


def context_of(attention: Tensor) -> Context:
    return Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(0), cls_attention=attention)


def expected(x: list[list[float]], score: list[float], keep: int) -> tuple[list[list[float]], list[int]]:
    """The returned tokens, and the one that each token is in."""
    ranked = sorted(range(len(x)), key=lambda i: (-score[i], i))
    kept = sorted(ranked[:keep])
    host = {i: max(kept, key=lambda j: cosine(x[i], x[j])) for i in ranked[keep:]}
    squeezed = []
    for j in kept:
        guests = [i for i in host if host[i] == j]
        total = math.e + sum(math.exp(cosine(x[i], x[j])) for i in guests)
        squeezed.append(
            [
                (math.e * x[j][d] + sum(math.exp(cosine(x[i], x[j])) * x[i][d] for i in guests)) / total
                for d in range(len(x[0]))
            ]
        )
    return squeezed, [kept.index(host.get(i, i)) for i in range(len(x))]


def check(tokens: Tokens, score: list[list[float]], keep: int, after: Tokens) -> None:
    assert after.n_patches == keep
    assert torch.equal(after.prefix, tokens.prefix)
    for b, row in enumerate(score):
        patches, owner = expected(tokens.patches[b].tolist(), row, keep)
        torch.testing.assert_close(after.patches[b], torch.tensor(patches, dtype=torch.float64))
        assert after.owner[b].tolist() == [owner[i] for i in tokens.owner[b].tolist()]
        size = tokens.size[b].tolist()
        assert after.size[b].tolist() == [sum(s for i, s in enumerate(size) if owner[i] == k) for k in range(keep)]


@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.parametrize("n", [2, 3, 9, 14])
def test_pruned_tokens_are_squeezed_into_the_most_similar_kept_ones(n: int, prefix: int):
    method = create("tps")
    tokens = Tokens.from_sequence(drawn(n, 3, prefix + n, 5), (1, n), prefix)
    attention = drawn(50 + n, 3, n).softmax(dim=1)
    for keep in range(1, n):
        assert method.count(keep, n, 3, (1, n)) == keep
        check(tokens, attention.tolist(), keep, method(tokens, keep, context_of(attention)))


def test_sizes_are_added_and_do_not_enter_the_mean():
    tokens = merged([3, 1, 2, 5, 1, 1])
    attention = drawn(7, 3, 6).softmax(dim=1)
    for keep in range(1, 6):
        check(tokens, attention.tolist(), keep, create("tps")(tokens, keep, context_of(attention)))


def test_a_case_by_hand():
    # Tokens 0 and 3 are kept. Token 1 is parallel to 0, with weight e as 0 has; token 2 is at 45 degrees to both.
    x = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [3.0, 0.0], [1.0, 1.0], [0.0, 2.0]]], dtype=torch.float64)
    tokens = Tokens.from_sequence(x, (2, 2))
    after = create("tps")(tokens, 2, context_of(torch.tensor([[0.4, 0.2, 0.1, 0.3]])))
    share = math.exp(math.sqrt(0.5))
    total = 2 * math.e + share
    first = [(4 * math.e + share) / total, share / total]  # equally similar hosts: the first takes token 2
    torch.testing.assert_close(after.patches[0], torch.tensor([first, [0.0, 2.0]], dtype=torch.float64))
    assert after.owner.tolist() == [[0, 0, 0, 1]]
    assert after.size.tolist() == [[3, 1]]


def test_of_equal_scores_the_earlier_tokens_are_kept():
    tokens = Tokens.from_sequence(drawn(0, 1, 7, 3), (2, 3))
    after = create("tps")(tokens, 4, context_of(torch.full((1, 6), 0.1)))
    assert after.owner[0, :4].tolist() == [0, 1, 2, 3]


def trained(counts: tuple[int, ...], seed: int = 0) -> Downsampler:
    torch.manual_seed(seed)
    method = create("tps", score="predictor")
    method.setup(Geometry(DIM, 2, tuple(range(1, 1 + len(counts))), (3, 3), counts))
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return method.eval()


@pytest.mark.parametrize("stage", [0, 1])
def test_the_network_of_each_stage_can_choose_the_tokens(stage: int):
    method = trained((5, 3)).double()
    weights = predictor_weights(method.state_dict(), stage)
    tokens = Tokens.from_sequence(drawn(4, 3, 10, DIM), (3, 3))
    score = [kept_probabilities(weights, tokens.patches[b].tolist()) for b in range(3)]
    for keep in (1, 4, 8):
        check(tokens, score, keep, method(tokens, keep, at(stage)))


def test_the_two_variants_declare_what_they_need():
    attentive, predicting = create("tps"), create("tps", score="predictor")
    assert (attentive.site, attentive.needs, attentive.trained) == ("after_attention", {"cls_attention"}, False)
    assert (predicting.site, predicting.needs, predicting.trained) == ("before_block", frozenset(), True)
    attentive.setup(Geometry(DIM, 2, (1,), (3, 3), (5,)))
    assert not attentive.state_dict()


@pytest.mark.parametrize("settings", POOLINGS, ids=str)
def test_training_with_sure_decisions_equals_evaluation(settings: dict[str, Any], tiny_vit: Callable[..., Any]):
    pixels, found = drawn(3, 6, 3, 32, 32), []
    model = sure(tiny_vit(**settings), create("tps", score="predictor"), pixels)
    for image in pixels:
        trained, measured, counts = trained_and_measured(model, create("tps", score="predictor"), image)
        torch.testing.assert_close(trained, measured, rtol=1e-9, atol=1e-9)
        found.append(counts)
    assert any(16 > first > second > 1 for first, second in found)


def test_training_squeezes_dropped_tokens_and_gives_a_gradient_for_every_weight():
    method = trained((5, 3)).double().train()
    tokens = Tokens.from_sequence(drawn(1, 3, 10, DIM), (3, 3))
    torch.manual_seed(0)
    first = method.relaxed(tokens, 5, at(0))
    second = method.relaxed(first, 3, at(1))
    for b in range(3):
        decided = first.presence[b].tolist()
        kept = [i for i in range(9) if decided[i]]
        patches, owner = expected(tokens.patches[b].tolist(), decided, len(kept))
        torch.testing.assert_close(first.patches[b, kept], torch.tensor(patches, dtype=torch.float64))
        dropped = [i for i in range(9) if not decided[i]]
        assert torch.equal(first.patches[b, dropped], tokens.patches[b, dropped])
        assert first.owner[b].tolist() == [kept[k] for k in owner]
        assert first.size[b, kept].tolist() == [owner.count(k) for k in range(len(kept))]
    assert (second.presence <= first.presence).all()
    (method.loss([first, second]) + (second.patches * second.presence[..., None]).square().sum()).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_the_loss_is_on_the_kept_fraction():
    tokens = Tokens.from_sequence(drawn(1, 2, 11, DIM), (2, 5))
    after = [replace(tokens, presence=torch.tensor([[1.0] * 8 + [0] * 2, [1.0] * 5 + [0] * 5]))]
    method = create("tps", score="predictor")
    method.setup(Geometry(DIM, 2, (1,), (2, 5), counts=(7,), targets=(7,)))
    assert method.loss(after).item() == pytest.approx(2 * ((0.8 - 0.7) ** 2 + (0.5 - 0.7) ** 2) / 2)


def test_training_by_the_class_token_removes_tokens():
    method = create("tps").train()
    tokens, context = Tokens.from_sequence(drawn(2, 3, 10, DIM), (3, 3)), context_of(drawn(3, 3, 9).softmax(dim=1))
    relaxed, removed = method.relaxed(tokens, 4, context), method(tokens, 4, context)
    assert torch.equal(relaxed.x, removed.x)
    assert relaxed.presence is None
    assert method.loss([relaxed]) is None


def test_a_model_trained_for_dynamic_vit_can_be_used():
    dynamic = create("dynamic_vit")
    dynamic.setup(Geometry(DIM, 2, (1, 2), (3, 3), (5, 3)))
    trained((5, 3)).load_state_dict(dynamic.state_dict())


def test_squeezing_costs_the_similarities(tiny_vit):
    model = DownsampledViT(tiny_vit(), create("tps"), Schedule.stages(0.5, (1, 2))).eval()
    macs = count_macs(model, torch.zeros(1, 3, 32, 32))
    assert macs.ledger.leaving == (16, 8, 4, 4)
    assert macs.method > (8 * 8 + 4 * 4) * 32


def test_other_scores_are_rejected():
    with pytest.raises(UserError, match="score"):
        create("tps", score="received")
