"""Sinkhorn against plain loops."""

import math

import pytest
import torch
from plain_math import at, merged, noisy

from tokbench import Downsampler, Geometry, Tokens, create
from tokbench.errors import UserError

DIM = 6


def made(counts: tuple[int, ...], seed: int = 0, **params: object) -> Downsampler:
    torch.manual_seed(seed)
    method = create("sinkhorn", **params)
    method.setup(Geometry(DIM, 2, tuple(range(1, 1 + len(counts))), (3, 3), counts))
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return method.eval()


def state(method: Downsampler, stage: int) -> list:
    return method.state_dict()[f"queries.{stage}"].tolist()


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector]


def formula(queries: list[list[float]], x: list[list[float]], epsilon: float) -> tuple[list, list]:
    """The plan by scaling vectors u and v, as in textbooks, with masses 1/K and 1/N."""
    kernel = [
        [math.exp(sum(a * b for a, b in zip(unit(q), unit(t), strict=True)) / epsilon) for t in x] for q in queries
    ]
    k, n = len(queries), len(x)
    u, v = [1.0] * k, [1.0] * n
    for _ in range(3):
        v = [1 / n / sum(u[a] * kernel[a][i] for a in range(k)) for i in range(n)]
        u = [1 / k / sum(kernel[a][i] * v[i] for i in range(n)) for a in range(k)]
    return [[k * u[a] * kernel[a][i] * v[i] for i in range(n)] for a in range(k)], x


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("epsilon", [1.0, 0.1])
def test_the_new_tokens_match_the_formula(stage: int, epsilon: float):
    counts = (5, 3)
    for seed in range(4):
        method = made(counts, seed, epsilon=epsilon).double()
        tokens = merged([2.0, 1.0, 4.0, 1.0, 1.0, 3.0, 1.0], seed)
        after = method(tokens, counts[stage], at(stage))
        for b in range(3):
            x = tokens.patches[b].tolist()
            matrix, values = formula(state(method, stage), x, epsilon)
            assert len(matrix) == counts[stage]
            for k, row in enumerate(matrix):
                wanted = [sum(row[i] * values[i][c] for i in range(7)) for c in range(DIM)]
                assert after.patches[b, k].tolist() == pytest.approx(wanted, abs=1e-9)
                # Each token's size is divided in proportion to its weights.
                shares = [row[i] / sum(other[i] for other in matrix) for i in range(7)]
                size = sum(share * one for share, one in zip(shares, tokens.size[b].tolist(), strict=True))
                assert after.size[b, k].item() == pytest.approx(size, rel=1e-5)
            for patch, token in enumerate(tokens.owner[b].tolist()):
                weights = [row[token] for row in matrix]
                assert after.owner[b, patch] == weights.index(max(weights))


def haurum(queries: list[list[float]], x: list[list[float]]) -> tuple[list, list]:
    """The plan whose columns sum to 1, and the unit-length tokens that it sums."""
    kernel = [[math.exp(sum(a * b for a, b in zip(unit(q), unit(t), strict=True))) for t in x] for q in queries]
    k, n = len(queries), len(x)
    u, v = [1.0] * k, [1.0] * n
    for _ in range(3):
        u = [1 / k / sum(kernel[a][i] * v[i] for i in range(n)) for a in range(k)]
        v = [1 / n / sum(u[a] * kernel[a][i] for a in range(k)) for i in range(n)]
    return [[n * u[a] * kernel[a][i] * v[i] for i in range(n)] for a in range(k)], [unit(t) for t in x]


def test_the_variant_of_haurum_sums_unit_length_tokens():
    counts = (5, 3)
    for stage, count in enumerate(counts):
        method = made(counts, stage, variant="haurum").double()
        tokens = merged([2.0, 1.0, 4.0, 1.0, 1.0, 3.0, 1.0], stage)
        after = method(tokens, count, at(stage))
        for b in range(3):
            matrix, values = haurum(state(method, stage), tokens.patches[b].tolist())
            for k, row in enumerate(matrix):
                wanted = [sum(row[i] * values[i][c] for i in range(7)) for c in range(DIM)]
                assert after.patches[b, k].tolist() == pytest.approx(wanted, abs=1e-9)
                size = sum(share * one for share, one in zip(row, tokens.size[b].tolist(), strict=True))
                assert after.size[b, k].item() == pytest.approx(size, rel=1e-5)


def test_every_weight_gets_a_gradient():
    method = made((5, 3)).train()
    tokens = Tokens.from_sequence(noisy(3, 10, DIM, seed=1), (3, 3))
    outputs = [method(tokens, count, at(stage)) for stage, count in enumerate((5, 3))]
    sum(output.patches.square().sum() for output in outputs).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad.abs().sum() > 1e-6, name


def test_weights_can_be_saved_and_loaded():
    method, other = made((5, 3), seed=1), made((5, 3), seed=2)
    tokens = Tokens.from_sequence(noisy(2, 10, DIM, seed=3), (3, 3))
    assert not torch.allclose(method(tokens, 5, at(0)).x, other(tokens, 5, at(0)).x)
    other.load_state_dict(method.state_dict())
    assert torch.equal(method(tokens, 5, at(0)).x, other(tokens, 5, at(0)).x)


@pytest.mark.parametrize(("n", "keep"), [(2, 1), (3, 1), (9, 8)])
def test_the_sum_of_sizes_is_kept_at_the_smallest_and_largest_counts(n: int, keep: int):
    tokens = Tokens.from_sequence(noisy(2, 1 + n, DIM, seed=4), (1, n))
    after = made((keep,))(tokens, keep, at(0))
    assert after.n_patches == keep
    assert after.size.sum(dim=1).tolist() == pytest.approx([n, n], rel=1e-5)
    assert (after.owner >= 0).all()
    assert torch.equal(after.prefix, tokens.prefix)


def test_an_image_gives_the_same_result_in_any_batch():
    method, x = made((5, 3)), noisy(5, 10, DIM, seed=6)
    together = method(Tokens.from_sequence(x, (3, 3)), 5, at(0))
    for b in range(5):
        alone = method(Tokens.from_sequence(x[b : b + 1], (3, 3)), 5, at(0))
        assert torch.allclose(alone.x[0], together.x[b], atol=1e-5)
        assert torch.equal(alone.owner[0], together.owner[b])


@pytest.mark.parametrize("params", [{"epsilon": 0.0}, {"iterations": 0}])
def test_invalid_parameters_are_rejected(params: dict[str, float]):
    with pytest.raises(UserError, match="sinkhorn"):
        create("sinkhorn", **params)
