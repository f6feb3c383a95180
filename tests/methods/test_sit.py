"""SiT against plain loops."""

import pytest
import torch
from plain_math import at, gelu, linear, merged, noisy, normed, softmax

from tokbench import Downsampler, Geometry, Tokens, create

DIM = 6


def made(counts: tuple[int, ...], seed: int = 0, **params: object) -> Downsampler:
    torch.manual_seed(seed)
    method = create("sit", **params)
    method.setup(Geometry(DIM, 2, tuple(range(1, 1 + len(counts))), (3, 3), counts))
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return method.eval()


def state(method: Downsampler, stage: int) -> dict[str, list]:
    prefix = f"slimming.{stage}."
    return {k[len(prefix) :]: v.tolist() for k, v in method.state_dict().items() if k.startswith(prefix)}


def formula(weights: dict[str, list], x: list[list[float]]) -> tuple[list, list]:
    logits = []
    for token in x:
        z = normed(token, weights["0.weight"], weights["0.bias"])
        logits.append(linear(weights, "3", [gelu(v) for v in linear(weights, "1", z)]))
    return [softmax(list(of_token)) for of_token in zip(*logits, strict=True)], x


@pytest.mark.parametrize("stage", [0, 1])
def test_the_new_tokens_match_the_formula(stage: int):
    counts = (5, 3)
    for seed in range(4):
        method = made(counts, seed).double()
        tokens = merged([2.0, 1.0, 4.0, 1.0, 1.0, 3.0, 1.0], seed)
        after = method(tokens, counts[stage], at(stage))
        for b in range(3):
            x = tokens.patches[b].tolist()
            matrix, values = formula(state(method, stage), x)
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
