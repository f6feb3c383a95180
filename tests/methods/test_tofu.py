"""ToFu against its formulas in plain loops."""

import math

import pytest
import torch
from blank_models import blank
from plain_math import context_of
from torch import Tensor

from tokbench import DownsampledViT, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.measure.macs import count_macs


def noisy(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def length(x: list[float]) -> float:
    return math.sqrt(sum(c * c for c in x))


def groups(keys: list[list[float]], prefix: int, r: int) -> list[list[int]]:
    """The members of each returned token, with the target first; keys of the patch tokens."""
    unit = [[c / length(k) for c in k] for k in keys]
    even = [i for i in range(len(keys)) if (prefix + i) % 2 == 0]
    odd = [i for i in range(len(keys)) if (prefix + i) % 2 == 1]
    found = []
    for a in even:
        similar = [sum(p * q for p, q in zip(unit[a], unit[b], strict=True)) for b in odd]
        found.append((-max(similar), a, odd[similar.index(max(similar))]))
    joined = {a: b for _, a, b in sorted(found)[:r]}
    return [[a] for a in even if a not in joined] + [[b] + [a for a in even if joined.get(a) == b] for b in odd]


def mlerp(members: list[list[float]], weights: list[float]) -> list[float]:
    mean = [sum(w * x[d] for w, x in zip(weights, members, strict=True)) / sum(weights) for d in range(len(members[0]))]
    return [c / length(mean) * max(length(x) for x in members) for c in mean]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.parametrize("depth", [5, 6])
def test_early_blocks_keep_the_target_and_late_ones_its_norm(seed: int, weighted: bool, prefix: int, depth: int):
    method = create("tofu", weighted=weighted)
    for n in (2, 3, 6, 11):
        x, keys = noisy(2, prefix + n, 4, seed=seed), noisy(2, n, 3, seed=70 + seed)
        size = (noisy(2, n, seed=30 + seed).abs() * 3 + 1).float()
        tokens = Tokens.from_sequence(x, (1, n), prefix).replace(size=size)
        for keep in range(1, n):
            r = min(n - keep, n // 2)
            after = method(tokens, keep, context_of(keys, depth))
            assert after.n_patches == n - r == method.count(keep, n, depth, (1, n))
            assert torch.equal(after.prefix, x[:, :prefix])
            for b in range(2):
                for j, members in enumerate(groups(keys[b].tolist(), prefix, r)):
                    if depth < 6:
                        assert torch.equal(after.patches[b, j], tokens.patches[b, members[0]])
                    else:
                        weights = [size[b, i].item() if weighted else 1.0 for i in members]
                        vector = mlerp([tokens.patches[b, i].tolist() for i in members], weights)
                        torch.testing.assert_close(after.patches[b, j], torch.tensor(vector, dtype=torch.float64))
                    assert after.size[b, j].item() == pytest.approx(sum(size[b, i].item() for i in members))
                    assert all(after.owner[b, i] == j for i in members)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_unmerged_token_is_unchanged(dtype: torch.dtype):
    x = (noisy(2, 13, 8, seed=3) * 300).to(dtype)
    tokens = Tokens.from_sequence(x, (3, 4))
    after = create("tofu")(tokens, 9, context_of(noisy(2, 12, 3, seed=4), 9))
    alone = 0
    for b in range(2):
        for j in range(9):
            if after.size[b, j] == 1:
                alone += 1
                assert torch.equal(after.patches[b, j], tokens.patches[b, after.owner[b].tolist().index(j)])
    assert alone >= 2 * 6


def test_opposite_tokens_stay_finite():
    x = torch.tensor([[[1.0, 0.0], [2.0, 3.0], [-2.0, -3.0]]]).requires_grad_()
    after = create("tofu")(Tokens.from_sequence(x, (1, 2)), 1, context_of(torch.ones(1, 2, 2), 6))
    assert after.patches.tolist() == [[[0.0, 0.0]]]
    (gradient,) = torch.autograd.grad(after.x.sum(), x)
    assert not gradient.isnan().any()


def test_a_negative_block_is_rejected():
    with pytest.raises(UserError, match="prune_before=-1"):
        create("tofu", prune_before=-1)


def test_the_backbone_has_the_same_macs_as_with_tome():
    def backbone(method: str) -> float:
        model = DownsampledViT(blank("deit_tiny_patch16_224"), create(method), Schedule.every_block(r=13)).eval()
        macs = count_macs(model, torch.zeros(1, 3, 224, 224))
        assert macs.ledger.leaving == tuple(range(183, 39, -13))
        return macs.total - macs.method

    assert backbone("tofu") == backbone("tome")
