"""TPS against its formulas in plain loops."""

import math

import pytest
import torch
from plain_math import at, cosine, drawn, kept_probabilities, merged, predictor_weights
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


def test_training_gives_the_same_tokens_and_a_gradient_for_every_weight():
    method = trained((5, 3))
    tokens = Tokens.from_sequence(drawn(1, 3, 10, DIM).float(), (3, 3))
    measured = method(tokens, 5, at(0)).x
    method.train()
    outputs = [method(tokens, 5, at(stage)) for stage in (0, 1)]
    torch.testing.assert_close(outputs[0].x, measured)
    sum(output.patches.square().sum() for output in outputs).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


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
