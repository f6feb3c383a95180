"""ToMe against its formulas in plain loops."""

import math

import pytest
import torch
from blank_models import blank
from torch import Tensor

from tokbench import Context, DownsampledViT, Schedule, Tokens, create
from tokbench.measure.macs import count_macs


def noisy(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def context_of(keys: Tensor, depth: int = 0) -> Context:
    return Context(depth=depth, depths=(depth,), stage=0, noise=torch.zeros(0), keys=keys)


def cosine(a: list[float], b: list[float]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True)) / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))


def groups(keys: list[list[float]], prefix: int, r: int) -> list[list[int]]:
    """The members of each returned token, in ToMe's order; keys of the patch tokens."""
    n = len(keys)
    sources = [i for i in range(n) if (prefix + i) % 2 == 0]
    targets = [i for i in range(n) if (prefix + i) % 2 == 1]
    best = {a: max(targets, key=lambda b: cosine(keys[a], keys[b])) for a in sources}
    merged = sorted(sources, key=lambda a: -cosine(keys[a], keys[best[a]]))[:r]
    left = [[a] for a in sources if a not in merged]
    return left + [[b] + [a for a in merged if best[a] == b] for b in targets]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_the_most_similar_pairs_are_merged_by_size(seed: int, prefix: int):
    method = create("tome")
    for n in (2, 3, 6, 11):
        x, keys = noisy(2, prefix + n, 4, seed=seed), noisy(2, n, 3, seed=70 + seed)
        size = noisy(2, n, seed=30 + seed).abs().float() + 1
        tokens = Tokens.from_sequence(x, (1, n), prefix).replace(size=size)
        for keep in range(1, n):
            r = min(n - keep, n // 2)
            after = method(tokens, keep, context_of(keys))
            assert after.n_patches == n - r == method.count(keep, n, 0, (1, n))
            assert torch.equal(after.prefix, x[:, :prefix])
            for b in range(2):
                expected = groups(keys[b].tolist(), prefix, r)
                for j, members in enumerate(expected):
                    mass = sum(size[b, i].item() for i in members)
                    mean = sum(size[b, i].item() * tokens.patches[b, i] for i in members) / mass
                    torch.testing.assert_close(after.patches[b, j], mean)
                    assert after.size[b, j].item() == pytest.approx(mass)
                    assert all(after.owner[b, i] == j for i in members)


def test_with_one_class_token_odd_patches_are_merged_into_even_ones():
    keys = noisy(1, 7, 3, seed=0)
    after = create("tome")(Tokens.from_sequence(noisy(1, 8, 4, seed=1), (1, 7)), 4, context_of(keys))
    assert after.owner[0, ::2].tolist() == [0, 1, 2, 3]
    assert after.size.sum() == 7


def test_equal_tokens_are_merged_in_order():
    tokens = Tokens.from_sequence(noisy(1, 9, 4, seed=0), (1, 8))
    after = create("tome")(tokens, 6, context_of(torch.ones(1, 8, 3)))
    # Sources 1, 3, 5, 7, targets 0, 2, 4, 6: the first two sources are merged into the first target.
    assert after.owner.tolist() == [[2, 2, 3, 2, 4, 0, 5, 1]]


@pytest.mark.parametrize(("n_prefix", "n"), [(1, 196), (1, 197), (1, 3), (2, 196)])
def test_at_most_half_are_removed_at_once(n_prefix: int, n: int):
    most = (n_prefix + n - n_prefix) // 2  # (sequence - protected) // 2
    assert create("tome").count(1, n, 0, None) == n - most


def test_attention_is_proportional_by_default():
    assert create("tome").proportional
    assert not create("tome", proportional=False).proportional


@pytest.mark.parametrize(
    ("model", "r", "gmacs"),
    [("deit_small_patch16_224", 13, 2.703), ("deit_small_patch16_224", 16, 2.291), ("deit_base_patch16_224", 8, 13.10)],
)
def test_compute_matches_the_paper(model: str, r: int, gmacs: float):
    vit = blank(model)
    macs = count_macs(
        DownsampledViT(vit, create("tome"), Schedule.every_block(r=r)).eval(), torch.zeros(1, 3, 224, 224)
    )
    left, n = [], 196
    for _ in range(12):
        n -= min(r, n // 2)
        left.append(n)
    assert macs.ledger.leaving == tuple(left)
    digits = 3 if gmacs < 10 else 2
    assert round((macs.total - macs.method) / 1e9, digits) == gmacs
