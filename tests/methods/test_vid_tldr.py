"""vid-TLDR against its formulas in plain loops."""

import math
from typing import Any

import pytest
import torch
from plain_math import cosine, drawn, merged, noisy, softmax
from torch import Tensor

from tokbench import Context, DownsampledViT, Schedule, Tokens, create
from tokbench.measure.macs import count_macs

HEADS = 2


def context_of(logits: Tensor, size: Tensor, prefix: int) -> Context:
    """The context of proportional attention: logits (B, H, P+N, P+N), size (B, N)."""
    padded = torch.cat([torch.ones(len(size), prefix), size], dim=1).to(logits.dtype)
    attention = (logits + padded.log()[:, None, None]).softmax(dim=-1)
    return Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(0), attention=attention)


def saliency(logits: list[list[list[float]]], prefix: int) -> list[float]:
    """The weight of each patch token, from logits without sizes: head, query, key."""
    attention = [[softmax(row) for row in head] for head in logits]
    length = len(logits[0])
    s = []
    for i in range(prefix, length):
        row = [sum(head[i][j] for head in attention) / len(attention) for j in range(length)]
        s.append(sum(a * math.log(a) for a in row))
    low = min(s)
    scaled = [v - low for v in s]
    scaled = [v / max(scaled) for v in scaled]
    mean = sum(scaled) / len(scaled)
    most = max(v - mean for v in scaled)
    return [0.0 if v < mean else (v - mean) / most for v in scaled]


def expected(
    x: list[list[float]], size: list[float], w: list[float], r: int
) -> tuple[list[list[float]], list[float], list[int]]:
    """The returned tokens, their sizes, and the one that each token is in, -1 if it has vanished."""
    n = len(x)
    even, odd = range(0, n, 2), range(1, n, 2)
    best = {a: max(odd, key=lambda b: cosine(x[a], x[b])) for a in even}
    ranked = sorted(even, key=lambda a: (-(1 + cosine(x[a], x[best[a]])) / 2, a))
    gone = ranked[:r]
    order = [i for i in even if i not in gone] + list(odd)
    patches, sizes = [], []
    for b in order:
        sources = [a for a in gone if best[a] == b]
        total = size[b] + sum(w[a] * size[a] for a in sources)
        sizes.append(total)
        patches.append(
            [(size[b] * x[b][d] + sum(w[a] * size[a] * x[a][d] for a in sources)) / total for d in range(len(x[0]))]
        )
    owner = [order.index(i) if i not in gone else (order.index(best[i]) if w[i] > 0 else -1) for i in range(n)]
    return patches, sizes, owner


def check(tokens: Tokens, logits: Tensor, keep: int) -> Tokens:
    method, n, prefix = create("vid_tldr"), tokens.n_patches, tokens.n_prefix
    after = method(tokens, keep, context_of(logits, tokens.size, prefix))
    count = max(keep, n - n // 2)
    assert after.n_patches == method.count(keep, n, 3, None) == count
    assert torch.equal(after.prefix, tokens.prefix)
    for b in range(len(tokens.size)):
        w = saliency(logits[b].tolist(), prefix)
        patches, size, owner = expected(tokens.patches[b].tolist(), tokens.size[b].tolist(), w, n - count)
        torch.testing.assert_close(after.patches[b], torch.tensor(patches, dtype=torch.float64))
        assert after.size[b].tolist() == pytest.approx(size)
        assert after.owner[b].tolist() == [owner[i] if i >= 0 else -1 for i in tokens.owner[b].tolist()]
    return after


@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.parametrize("n", [2, 3, 8, 13])
def test_groups_and_weights_match_the_formulas(n: int, prefix: int):
    tokens = Tokens.from_sequence(drawn(n, 3, prefix + n, 4), (1, n), prefix)
    logits = 2 * drawn(60 + n, 3, HEADS, prefix + n, prefix + n)
    for keep in range(1, n):
        check(tokens, logits, keep)


def test_sizes_count_in_the_mean_but_not_in_the_saliency():
    size = [3.0, 1, 2, 5, 1, 1, 4]
    tokens = merged(size)
    logits = 2 * drawn(8, 3, HEADS, 8, 8)
    for keep in range(4, 7):
        check(tokens, logits, keep)


def test_a_second_reduction_continues_with_fractional_sizes_and_dropped_patches():
    tokens = Tokens.from_sequence(drawn(9, 3, 14, 4), (1, 13))
    first = check(tokens, 2 * drawn(10, 3, HEADS, 14, 14), 8)
    assert bool((first.owner < 0).any())
    assert bool((first.size % 1 > 0).any())
    check(first, 2 * drawn(11, 3, HEADS, 9, 9), 5)


def test_a_case_by_hand():
    # Rows of attention: token 2 sees only itself, the most salient; the others attend to all alike, background. Token 0
    # is merged into token 1 and vanishes, token 2 into token 3 with weight 1.
    x = torch.tensor([[[5.0, 5.0], [2.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 3.0]]], dtype=torch.float64)
    attention = torch.full((1, 1, 5, 5), 0.2, dtype=torch.float64)
    attention[0, 0, 3] = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0])
    context = Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(0), attention=attention)
    after = create("vid_tldr")(Tokens.from_sequence(x, (2, 2)), 2, context)
    torch.testing.assert_close(after.patches, torch.tensor([[[3.0, 0.0], [0.0, 2.0]]], dtype=torch.float64))
    assert after.size.tolist() == [[1, 2]]
    assert after.owner.tolist() == [[-1, 0, 1, 1]]


def test_all_merged_tokens_vanish_if_none_stands_out():
    tokens = Tokens.from_sequence(drawn(12, 2, 8, 4), (1, 7))
    attention = torch.full((2, HEADS, 8, 8), 1 / 8, dtype=torch.float64)
    context = Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(0), attention=attention)
    after = create("vid_tldr")(tokens, 5, context)
    assert torch.equal(after.size, torch.ones(2, 5))
    assert (after.owner < 0).sum(dim=1).tolist() == [2, 2]


def test_of_equally_similar_pairs_the_earlier_is_merged():
    x = torch.ones(1, 7, 3, dtype=torch.float64)
    logits = torch.zeros(1, 1, 7, 7, dtype=torch.float64)
    logits[0, 0, 1, 1] = 9.0  # the first patch is the only salient one
    after = create("vid_tldr")(Tokens.from_sequence(x, (1, 6)), 5, context_of(logits, torch.ones(1, 6), 1))
    assert after.owner.tolist() == [[2, 2, 0, 3, 1, 4]]


def test_a_model_gives_the_same_result_alone_and_in_a_batch(tiny_vit: Any):
    model = DownsampledViT(tiny_vit(std=0.5), create("vid_tldr"), Schedule.stages(0.7, (1, 2, 3))).eval()
    images = noisy(6, 3, 32, 32, seed=7)
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(images[b : b + 1]) for b in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_its_macs_are_counted(tiny_vit: Any):
    model = DownsampledViT(tiny_vit(), create("vid_tldr"), Schedule.stages(0.5, (1, 2))).eval()
    macs = count_macs(model, torch.zeros(1, 3, 32, 32))
    assert macs.ledger.leaving == (16, 8, 4, 4)
    assert macs.method > (8 * 8 + 4 * 4) * 32
