"""RAJNI against its formulas in plain loops."""

import math
import statistics
from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench import Context, DownsampledViT, Schedule, Tokens, create
from tokbench.errors import UserError

HEADS, WIDTH = 2, 3


def noisy(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def context_of(attention: Tensor, values: Tensor) -> Context:
    return Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(0), cls_attention=attention, values=values)


def scores(attention: list[float], values: list[list[list[float]]]) -> list[float]:
    """The importance of one image's tokens; values by head, token, channel."""
    n = len(attention)
    v = [[statistics.fmean(head[i][d] for head in values) for d in range(WIDTH)] for i in range(n)]
    centre = [statistics.fmean(v[i][d] for i in range(n)) for d in range(WIDTH)]
    m = [statistics.fmean(abs(v[i][d] - centre[d]) for d in range(WIDTH)) for i in range(n)]
    mu, sigma = statistics.fmean(m), statistics.pstdev(m)
    return [a / (1 + math.exp(-(x - mu) / (sigma + 1e-6))) for a, x in zip(attention, m, strict=True)]


def expected(score: list[float], tau: float, gamma: float, least: float) -> list[int]:
    """The tokens that stay."""
    n = len(score)
    logs = [math.log(s + 1e-12) for s in score]
    q = statistics.fmean(logs) + 0.675 * (statistics.stdev(logs) if n > 1 else 0)
    d = statistics.fmean(max(q - one, 0) for one in logs) / abs(q)
    keep = n if d < tau else max(1, round(max(least, math.exp(-gamma * d)) * n))
    return sorted(sorted(range(n), key=lambda i: (-score[i], i))[:keep])


def check(tokens: Tokens, attention: Tensor, values: Tensor, **params: float) -> Tokens:
    method = create("rajni", **params)
    after = method(tokens, 1, context_of(attention, values))
    assert after.n_patches == tokens.n_patches == method.count(1, tokens.n_patches, 3, None)
    assert torch.equal(after.prefix, tokens.prefix)
    for b in range(attention.shape[0]):
        present = list(range(tokens.n_patches)) if tokens.valid is None else tokens.valid[b].nonzero()[:, 0].tolist()
        score = scores(attention[b, present].tolist(), values[b][:, present].tolist())
        kept = [present[i] for i in expected(score, **{"tau": 0.1, "gamma": 2.5, "least": 0.6, **params})]
        assert after.valid[b].tolist() == [True] * len(kept) + [False] * (tokens.n_patches - len(kept))
        assert torch.equal(after.patches[b, : len(kept)], tokens.patches[b, kept])
        assert torch.equal(after.size[b, : len(kept)], tokens.size[b, kept])
        moved = {i: j for j, i in enumerate(kept)}
        assert after.owner[b].tolist() == [moved.get(i, -1) for i in tokens.owner[b].tolist()]
    return after


@pytest.mark.parametrize(
    "params",
    [{}, {"tau": 0.0}, {"tau": 0.3}, {"gamma": 0.8}, {"tau": 0.0, "gamma": 0.0}, {"gamma": 9.0, "least": 0.2}],
    ids=str,
)
@pytest.mark.parametrize("prefix", [1, 2])
def test_the_fraction_follows_from_the_dispersion_of_importance(params: dict[str, float], prefix: int):
    counts = set()
    for n in (1, 2, 3, 9, 16):
        for peak in (0.3, 1.0, 3.0):
            attention = (noisy(4, prefix + n, seed=n) * peak).softmax(dim=1)[:, prefix:]
            values = noisy(4, HEADS, n, WIDTH, seed=90 + n)
            tokens = Tokens.from_sequence(noisy(4, prefix + n, 4, seed=20), (1, n), prefix)
            after = check(tokens, attention, values, **params)
            counts |= {(n, kept) for kept in after.valid.sum(dim=1).tolist()}
    assert (len(counts) > 5) == (params.get("gamma") != 0)


def test_padding_has_no_influence_and_sizes_are_kept():
    n = 12
    tokens = Tokens.from_sequence(noisy(4, 1 + 2 * n, 4, seed=1), (2, n))
    tokens = tokens.merge(torch.arange(2 * n).expand(4, -1) // 2, n)
    attention = (noisy(4, n, seed=1) * torch.tensor([[0.2], [1], [2], [4]])).softmax(dim=1)
    first = check(tokens, attention, noisy(4, HEADS, n, WIDTH, seed=2), gamma=4.0)
    assert not bool(first.valid.all())
    attention, values = noisy(4, n, seed=3).softmax(dim=1), noisy(4, HEADS, n, WIDTH, seed=4)
    second = check(first, attention, values)
    other = create("rajni")(
        first, 1, context_of(attention.where(first.valid, 5.0), values.where(first.valid[:, None, :, None], -9.0))
    )
    assert torch.equal(other.owner, second.owner)
    assert torch.equal(other.valid, second.valid)


def test_by_hand():
    # Equal values: sigmoid(0) = 1/2, so s = a/2. With log s = -4, -4, -4, -8: mean -5, std 2, q = -3.65,
    # D = (0.35·3 + 4.35) / 4 / 3.65 = 0.36986.
    attention = 2 * torch.tensor([[-4.0, -4.0, -4.0, -8.0]], dtype=torch.float64).exp()
    tokens = Tokens.from_sequence(noisy(1, 5, 2, seed=0), (2, 2))

    def owners(**params: float) -> list[int]:
        after = create("rajni", **params)(tokens, 1, context_of(attention, torch.ones(1, 2, 4, 3)))
        return after.owner[0].tolist()

    assert owners(tau=0.3699, gamma=9.0) == [0, 1, 2, 3]
    assert owners(tau=0.3698, gamma=0.3) == [0, 1, 2, 3]  # exp(-0.111) · 4 = 3.58
    assert owners(tau=0.3698, gamma=0.5) == [0, 1, 2, -1]  # exp(-0.185) · 4 = 3.32
    assert owners(gamma=9.0) == [0, 1, -1, -1]  # least: 0.6 · 4 = 2.4, and ties go to the earlier token
    assert owners(gamma=9.0, least=0.1) == [0, -1, -1, -1]


def test_a_model_gives_the_same_result_alone_and_in_a_batch(tiny_vit: Callable[..., VisionTransformer]):
    model = DownsampledViT(tiny_vit(std=0.5), create("rajni", gamma=1.0, least=0.3), Schedule.every_block(0.5)).eval()
    images = noisy(6, 3, 32, 32, seed=7).float()
    seen: list[Tokens] = []
    with torch.no_grad():
        together = model(images, observe=lambda _, tokens: seen.append(tokens))
        alone = torch.cat([model(images[b : b + 1]) for b in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert any(tokens.valid is not None for tokens in seen)  # the counts differ


@pytest.mark.parametrize("params", [{"tau": -0.1}, {"gamma": -1.0}, {"least": 0.0}, {"least": 1.1}], ids=str)
def test_errors_of_parameters(params: dict[str, float]):
    with pytest.raises(UserError, match=f"{next(iter(params))}=.*must"):
        create("rajni", **params)
