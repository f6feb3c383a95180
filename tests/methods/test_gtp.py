"""GTP against plain loops over its formulas, and its published saving."""

import math

import pytest
import timm
import torch
from plain_math import drawn
from torch import Tensor

from tokbench import Context, DownsampledViT, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.measure.macs import count_macs

HEADS, PREFIX = 2, 2


def start(seed: int, grid: tuple[int, int], batch: int = 2) -> Tokens:
    tokens = Tokens.from_sequence(drawn(seed, batch, PREFIX + grid[0] * grid[1], 3), grid, PREFIX)
    return tokens.replace(size=1 + drawn(seed + 1, *tokens.size.shape).abs())


def attention_of(tokens: Tokens, seed: int) -> Tensor:
    length = tokens.n_prefix + tokens.n_patches
    return drawn(seed + 2, tokens.size.shape[0], HEADS, length, length).mul(2).softmax(dim=3)


def reduced(tokens: Tokens, attention: Tensor, keep: int, **params: object) -> Tokens:
    noise = torch.zeros(tokens.size.shape)
    context = Context(depth=1, depths=(1,), stage=0, noise=noise, attention=attention)
    return create("gtp", **params)(tokens, keep, context)


def oracle(
    tokens: Tokens, attention: Tensor, keep: int, alpha: float, graph: str, m: int, b: int
) -> dict[int, tuple[list[float], float]]:
    """The vector and the size of each kept token, by its index."""
    n, p, width = tokens.n_patches, tokens.n_prefix, tokens.grid[1]
    a, x = attention[b].tolist(), tokens.patches[b].tolist()
    score = []
    for i in range(p, p + n):
        alone = max(a[h][i][i] for h in range(HEADS))
        received = max(sum(a[h][q][i] for q in range(p + n)) for h in range(HEADS))
        score.append(alone * received)
    ranked = sorted(range(n), key=lambda i: -score[i])
    kept, dropped = sorted(ranked[:keep]), ranked[keep:]

    def cosine(i: int, j: int) -> float:
        return sum(s * t for s, t in zip(x[i], x[j], strict=True)) / math.hypot(*x[i]) / math.hypot(*x[j])

    place = {token: patch for patch, token in enumerate(tokens.owner[b].tolist()) if token >= 0}
    edges = set()
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for j in others:
            (r, c), (s, t) = divmod(place[i], width), divmod(place[j], width)
            if graph != "semantic" and abs(r - s) <= 1 and abs(c - t) <= 1:
                edges.add((i, j))
        if graph != "spatial":
            for j in sorted(others, key=lambda j: -cosine(i, j))[:m]:
                edges |= {(i, j), (j, i)}
    degree = [sum((i, j) in edges for j in range(n)) for i in range(n)]
    result = {}
    for i in kept:
        vector, size = list(x[i]), float(tokens.size[b, i])
        for j in dropped:
            if (i, j) in edges:
                link = alpha / math.sqrt(degree[i] * degree[j])
                vector = [v + link * w for v, w in zip(vector, x[j], strict=True)]
                size += link * float(tokens.size[b, j])
        result[i] = (vector, size)
    return result


@pytest.mark.parametrize("graph", ["mixed", "spatial", "semantic"])
@pytest.mark.parametrize(("seed", "grid", "m"), [(0, (1, 2), 8), (10, (3, 4), 2), (20, (4, 3), 20), (30, (3, 5), 1)])
def test_vectors_and_sizes_match_the_formulas(graph: str, seed: int, grid: tuple[int, int], m: int):
    tokens, n = start(seed, grid), grid[0] * grid[1]
    attention = attention_of(tokens, seed)
    for keep in range(1, n):
        after = reduced(tokens, attention, keep, graph=graph, similar=m, alpha=0.3)
        assert after.n_patches == keep
        for b in range(2):
            wanted = oracle(tokens, attention, keep, 0.3, graph, m, b)
            assert [i for i in range(n) if after.owner[b, i] >= 0] == list(wanted)
            for k, (vector, size) in enumerate(wanted.values()):
                assert after.patches[b, k].tolist() == pytest.approx(vector)
                assert float(after.size[b, k]) == pytest.approx(size, rel=1e-5)


def test_adjacency_uses_original_positions_after_dropping():
    tokens, grid = start(3, (4, 4)), (4, 4)
    first = reduced(tokens, attention_of(tokens, 3), 9)
    assert first.grid == grid
    attention = attention_of(first, 4)
    second = reduced(first, attention, 4, graph="spatial")
    for b in range(2):
        wanted = oracle(first, attention, 4, 0.1, "spatial", 8, b)
        assert second.patches[b].tolist() == [pytest.approx(vector) for vector, _ in wanted.values()]


def test_alpha_zero_only_drops():
    tokens = start(5, (3, 4))
    after = reduced(tokens, attention_of(tokens, 5), 5, alpha=0.0)
    for b in range(2):
        kept = [i for i in range(12) if after.owner[b, i] >= 0]
        assert torch.equal(after.patches[b], tokens.patches[b, kept])
        assert torch.equal(after.size[b], tokens.size[b, kept])


def test_equal_tokens_are_all_similar():
    tokens = Tokens.from_sequence(torch.ones(1, 7, 3, dtype=torch.float64), (1, 6))
    after = reduced(tokens, torch.full((1, HEADS, 7, 7), 1 / 7, dtype=torch.float64), 4, graph="semantic", similar=1)
    assert after.owner[0].tolist() == [0, 1, 2, 3, -1, -1]
    assert after.patches == pytest.approx(torch.full((1, 4, 3), 1 + 0.1 * 2 / 5).numpy())


def test_removing_eight_tokens_per_block_saves_the_published_compute():
    vit = timm.create_model("deit_small_patch16_224", pretrained=False).eval()
    method = create("gtp")
    macs = count_macs(DownsampledViT(vit, method, Schedule.parse(method.schedule)), torch.zeros(1, 3, 224, 224))
    assert macs.ledger.leaving == tuple(196 - 8 * block for block in range(1, 13))
    # The paper's abstract: "up to 26 %" at a cost of 0.3 points; the plain model has 4.5989 gmacs.
    assert 1 - (macs.total - macs.method) / 4.5989e9 == pytest.approx(0.26, abs=0.005)


@pytest.mark.parametrize("params", [{"alpha": -0.1}, {"alpha": 1.5}, {"similar": 0}, {"graph": "none"}])
def test_invalid_parameters_are_rejected(params: dict[str, object]):
    with pytest.raises(UserError):
        create("gtp", **params)
