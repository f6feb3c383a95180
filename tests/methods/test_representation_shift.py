"""Representation Shift against its formula in plain loops."""

import math
from collections.abc import Callable

import pytest
import torch
from blank_models import blank
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench import Context, DownsampledViT, Schedule, Tokens, create
from tokbench.measure.macs import count_macs

METHOD = create("representation_shift")


def noisy(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def context_of(update: Tensor) -> Context:
    return Context(depth=0, depths=(0,), stage=0, noise=torch.zeros(0), update=update)


def moved_most(before: list[list[float]], update: list[list[float]], keep: int) -> list[int]:
    """The tokens that stay, of one image: those before the MLP, and what the MLP gives."""
    shift = [math.dist(f, x) for f, x in zip(update, before, strict=True)]
    return sorted(sorted(range(len(shift)), key=lambda i: (-shift[i], i))[:keep])


@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.parametrize("n", [2, 3, 9, 16])
def test_the_tokens_that_the_mlp_moves_most_stay_in_order(n: int, prefix: int):
    before, update = noisy(3, prefix + n, 4, seed=n), noisy(3, prefix + n, 4, seed=50 + n)
    tokens = Tokens.from_sequence(before + update, (1, n), prefix)
    for keep in range(1, n):
        after = METHOD(tokens, keep, context_of(update[:, prefix:]))
        assert after.n_patches == keep == METHOD.count(keep, n, 0, (1, n))
        assert torch.equal(after.prefix, tokens.prefix)
        for b in range(3):
            kept = moved_most(before[b, prefix:].tolist(), update[b, prefix:].tolist(), keep)
            assert torch.equal(after.patches[b], tokens.patches[b, kept])
            assert after.owner[b].tolist() == [kept.index(i) if i in kept else -1 for i in range(n)]


def test_merged_tokens_keep_their_size():
    before, update = noisy(2, 9, 4, seed=1), noisy(2, 4, 4, seed=2)
    tokens = Tokens.from_sequence(before, (2, 4)).merge(torch.tensor([[0, 0, 1, 2, 2, 2, 3, 3]] * 2), 4)
    after = METHOD(tokens, 2, context_of(update))
    for b in range(2):
        kept = moved_most((tokens.patches[b] - update[b]).tolist(), update[b].tolist(), 2)
        assert after.size[b].tolist() == [[2.0, 1.0, 3.0, 2.0][i] for i in kept]


def test_by_hand():
    # Distances 5, 1, 0 and 2: a large update that equals the token is no shift, and no update is one.
    before = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [1.0, 0.0], [9.0, 9.0], [0.0, 2.0]]])
    update = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [9.0, 9.0], [0.0, 0.0]]])
    tokens = Tokens.from_sequence(before + update, (2, 2))
    assert METHOD(tokens, 1, context_of(update[:, 1:])).owner.tolist() == [[0, -1, -1, -1]]
    assert METHOD(tokens, 2, context_of(update[:, 1:])).owner.tolist() == [[0, -1, -1, 1]]
    assert METHOD(tokens, 3, context_of(update[:, 1:])).owner.tolist() == [[0, 1, -1, 2]]


def test_ties_go_to_the_earlier_token():
    tokens = Tokens.from_sequence(torch.ones(1, 7, 2), (2, 3))
    after = METHOD(tokens, 2, context_of(torch.zeros(1, 6, 2)))
    assert after.owner.tolist() == [[0, 1, -1, -1, -1, -1]]


def test_in_a_model_the_update_is_the_mlps(tiny_vit: Callable[..., VisionTransformer]):
    vit = tiny_vit()
    model = DownsampledViT(vit, METHOD, Schedule.stages(0.5, (1,)))
    before: list[Tensor] = []
    update: list[Tensor] = []
    vit.blocks[1].norm2.register_forward_pre_hook(lambda _, given: before.append(given[0]))
    vit.blocks[1].mlp.register_forward_hook(lambda _, __, out: update.append(out))
    seen: list[Tokens] = []
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model(x, observe=lambda _, tokens: seen.append(tokens))
    for b in range(3):
        kept = moved_most(before[0][b, 1:].tolist(), update[0][b, 1:].tolist(), 8)
        assert [seen[1].owner[b, i].item() for i in kept] == list(range(8))
    assert model.attention_kernel == "fused"


@pytest.mark.parametrize(("model", "gmacs"), [("deit_small_patch16_224", 3.0), ("deit_base_patch16_224", 11.5)])
def test_compute_matches_the_published(model: str, gmacs: float):
    reducing = DownsampledViT(blank(model), METHOD, Schedule.stages(0.8, (0, 3, 6))).eval()
    macs = count_macs(reducing, torch.zeros(1, 3, 224, 224))
    assert macs.ledger.leaving == (157,) * 3 + (126,) * 3 + (101,) * 6
    assert round(macs.total / 1e9, 1) == gmacs
