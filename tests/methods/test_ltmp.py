"""LTMP against plain loops."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_math import cosine
from torch import Tensor

from tokbench import Context, DownsampledViT, Downsampler, Geometry, Schedule, Tokens, create
from tokbench.config import load_config
from tokbench.run.cells import cells_of

WIDTH = 3


def noisy(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(theta_m: float = 0.9, theta_p: float = 0.0) -> Downsampler:
    method = create("ltmp")
    method.setup(Geometry(4, 2, (1, 2), (3, 3), (5, 3)))
    with torch.no_grad():
        method.merge_thresholds[1] = theta_m
        method.prune_thresholds[1] = theta_p
    return method.double().eval()


def attention_of(batch: int, n: int, seed: int, prefix: int = 1, valid: Tensor | None = None) -> Tensor:
    """(B, 2, P+N, P+N), with no attention to padding."""
    logits = noisy(batch, 2, prefix + n, prefix + n, seed=seed)
    if valid is not None:
        logits[..., prefix:] = logits[..., prefix:].masked_fill(~valid[:, None, None], -torch.inf)
    return logits.softmax(dim=-1)


def context_of(attention: Tensor, seed: int, prefix: int = 1, valid: Tensor | None = None) -> Context:
    """A context of the second reduction; queries at padding do not count."""
    batch, _, length, _ = attention.shape
    keys = noisy(batch, length - prefix, WIDTH, seed=seed + 1)
    rows = attention[..., prefix:]
    if valid is not None:
        rows = rows * torch.nn.functional.pad(valid, (prefix, 0), value=True)[:, None, :, None]
    return Context(depth=2, depths=(1, 2), stage=1, noise=torch.empty(0), received=rows.sum(dim=(1, 2)), keys=keys)


def groups(attention: list, keys: list, prefix: int, theta_m: float, theta_p: float) -> list[list[int]]:
    """The groups of merged tokens, for an image without padding."""
    n, heads = len(keys), len(attention)
    s = [
        sum(head[q][prefix + i] for head in attention for q in range(prefix + n)) / heads / (prefix + n)
        for i in range(n)
    ]
    into = {}
    for i in range(1, n, 2):
        best = max(range(0, n, 2), key=lambda j: cosine(keys[i], keys[j]))
        if cosine(keys[i], keys[best]) > theta_m:
            into[i] = best
    ranked = sorted((i for i in range(n) if i not in into), key=lambda i: -s[i])
    staying = sorted([ranked[0]] + [i for i in ranked[1:] if s[i] >= theta_p])
    return [[i] + [source for source, target in into.items() if target == i] for i in staying]


@pytest.mark.parametrize(("theta_m", "theta_p"), [(0.9, 0.0), (0.5, 0.09), (-1.0, 0.0), (1.0, 0.11), (0.3, 1.0)])
def test_tokens_are_merged_and_pruned_by_the_thresholds(theta_m: float, theta_p: float):
    for seed in range(6):
        for n, keep in [(2, 1), (3, 2), (9, 7), (10, 4)]:
            prefix = seed % 3
            matrix = attention_of(3, n, seed, prefix)
            method, context = made(theta_m, theta_p), context_of(matrix, seed, prefix)
            size = torch.randint(1, 4, (3, n), generator=torch.Generator().manual_seed(seed)).float()
            tokens = Tokens.from_sequence(noisy(3, prefix + n, 4, seed=seed + 9), (1, n), prefix).replace(size=size)
            after = method(tokens, keep, context)
            assert after.n_patches == n == method.count(keep, n, 2, None)
            for b in range(3):
                attention, keys = matrix[b].tolist(), context.keys[b].tolist()
                wanted = groups(attention, keys, prefix, theta_m, theta_p)
                assert after.valid[b].tolist() == [k < len(wanted) for k in range(n)]
                for k, group in enumerate(wanted):
                    assert [i for i in range(n) if after.owner[b, i] == k] == sorted(group)
                    assert after.size[b, k] == size[b, group].sum()
                    mean = (size[b, group, None] * tokens.patches[b, group]).sum(dim=0) / size[b, group].sum()
                    assert torch.allclose(after.patches[b, k], mean)
                assert (after.owner[b] >= 0).sum() == sum(len(group) for group in wanted)


def test_padding_is_never_kept_and_does_not_vote():
    n, present = 9, [9, 4, 1, 6]
    valid = torch.arange(n) < torch.tensor(present)[:, None]
    matrix = attention_of(4, n, seed=3, valid=valid)
    context = context_of(matrix, seed=3, valid=valid)
    x = noisy(4, 1 + n, 4, seed=4)
    tokens = Tokens.from_sequence(x, (1, n))
    padded = Tokens(tokens.x, tokens.size * valid, tokens.owner.masked_fill(~valid, -1), (1, n), valid=valid)
    method = made(theta_m=0.4, theta_p=0.1)
    after = method(padded, 5, context)
    for b, m in enumerate(present):
        alone = Context(
            depth=2,
            depths=(1, 2),
            stage=1,
            noise=torch.empty(0),
            received=matrix[b : b + 1, :, : 1 + m, 1 : 1 + m].sum(dim=(1, 2)),
            keys=context.keys[b : b + 1, :m],
        )
        single = method(Tokens.from_sequence(x[b : b + 1, : 1 + m], (1, m)), 5, alone)
        k = int(single.valid.sum())
        assert int(after.valid[b].sum()) == k
        assert torch.allclose(after.patches[b, :k], single.patches[0, :k])
        assert after.owner[b, :m].tolist() == single.owner[0].tolist()


POOLINGS: list[dict[str, Any]] = [{}, {"global_pool": "avg"}, {"global_pool": "map", "class_token": False}]


@pytest.mark.parametrize("settings", POOLINGS, ids=str)
def test_training_equals_evaluation(settings: dict[str, Any], tiny_vit: Callable[..., Any]):
    images = noisy(6, 3, 32, 32, seed=8)
    method = create("ltmp")
    model = DownsampledViT(tiny_vit(**settings).double(), method, Schedule.stages(0.8, (0, 1, 2)))
    with torch.no_grad():
        method.merge_thresholds.fill_(0.8)
        method.prune_thresholds.fill_(0.04)
        trained, measured = [], []
        logits = model.train()(images, observe=lambda _, tokens: trained.append(tokens.presence.sum(dim=1).tolist()))
        expected = model.eval()(images, observe=lambda _, tokens: measured.append(present_in(tokens)))
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    assert trained == measured
    assert all(len(set(counts)) > 1 for counts in trained[:3])  # otherwise this tests little


def present_in(tokens: Tokens) -> list[int]:
    return (torch.ones_like(tokens.size) if tokens.valid is None else tokens.valid).sum(dim=1).tolist()


def test_a_decision_has_the_gradient_of_a_soft_threshold():
    tokens = Tokens.from_sequence(noisy(3, 10, 4, seed=1), (3, 3))
    matrix = attention_of(3, 9, seed=2)
    context = context_of(matrix, seed=2)
    method = made(theta_m=0.2, theta_p=0.05).train()
    after, measured = method.relaxed(tokens, 7, context), method.eval()(tokens, 7, context)
    effect = noisy(3, 9, seed=5)
    (after.presence * effect).sum().backward()

    merge = prune = 0.0
    for b in range(3):
        keys = context.keys[b].tolist()
        s = [float(matrix[b, :, :, 1 + i].mean()) for i in range(9)]
        best = {i: max(cosine(keys[i], keys[j]) for j in range(0, 9, 2)) for i in range(1, 9, 2)}
        kept = [group[0] for group in groups(matrix[b].tolist(), keys, 1, 0.2, 0.05)]
        order = kept + [i for i in range(9) if i not in kept]  # present tokens come first
        assert after.presence[b].tolist() == [k < len(kept) for k in range(9)]
        assert torch.equal(after.patches[b, : len(kept)], measured.patches[b, : len(kept)])
        assert after.owner[b].tolist() == measured.owner[b].tolist()
        assert len(kept) < 9
        for k, i in enumerate(order):
            merged = i in best and best[i] > 0.2
            if i in best:  # presence is (1 - merged) * kept
                merge += float(effect[b, k]) * slope(best[i] - 0.2) * (merged or i in kept)
            if not merged:
                prune -= float(effect[b, k]) * slope(s[i] - 0.05)
    assert method.merge_thresholds.grad[1].item() == pytest.approx(merge)
    assert method.prune_thresholds.grad[1].item() == pytest.approx(prune)
    assert method.merge_thresholds.grad[0] == method.prune_thresholds.grad[0] == 0  # the other reduction's


def slope(margin: float) -> float:
    """The derivative of sigmoid(margin / 0.1)."""
    soft = 1 / (1 + math.exp(-10 * margin))
    return 10 * soft * (1 - soft)


def test_the_loss_is_on_the_multiply_accumulates_left():
    tokens = Tokens.from_sequence(noisy(2, 11, 4, seed=1), (2, 5))
    rows = [[[1.0] * 8 + [0] * 2, [1.0] * 6 + [0] * 4], [[1.0] * 4 + [0] * 6, [1.0] * 2 + [0] * 8]]
    present = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    after = [dataclasses.replace(tokens, presence=one) for one in present]
    method = create("ltmp")
    method.setup(Geometry(4, 2, (1, 2), (2, 5), counts=(10, 10), targets=(5, 3), blocks=4))

    def fraction(first: float, second: float) -> float:
        """Of four blocks with 11 tokens at first; reductions before the MLPs of the second and the third."""
        n = [(11, 11), (11, first), (first, second), (second, second)]
        return sum(2 * a * 16 + a * a * 4 + 4 * m * 16 for a, m in n) / 4 / (6 * 11 * 16 + 11 * 11 * 4)

    reached, wanted = fraction(1 + 7, 1 + 3), fraction(1 + 5, 1 + 3)
    loss = method.loss(after)
    assert loss.item() == pytest.approx(10 * (reached - wanted) ** 2)
    loss.backward()
    assert (present.grad > 0).all()
    assert method.loss([tokens, tokens]).item() == pytest.approx(10 * (1 - wanted) ** 2)


def test_a_training_step_reaches_both_thresholds_of_every_reduction(tiny_vit: Callable[..., Any]):
    method, after = create("ltmp"), []
    model = DownsampledViT(tiny_vit(), method, Schedule.every_block(keep=0.9)).train()
    logits = model(noisy(4, 3, 32, 32, seed=2).float(), observe=lambda _, tokens: after.append(tokens))
    (logits.square().sum() + method.loss(after)).backward()
    for thresholds in (method.merge_thresholds, method.prune_thresholds):
        assert thresholds.grad.isfinite().all()
        assert (thresholds.grad != 0).all()


def test_thresholds_have_the_published_initial_values_and_can_be_saved():
    method, other = create("ltmp"), made(0.3, 0.2)
    method.setup(Geometry(4, 2, (1, 2), (3, 3), (5, 3)))
    assert method.merge_thresholds.tolist() == pytest.approx([0.9, 0.9])
    assert method.prune_thresholds.tolist() == [0, 0]
    method.load_state_dict(other.float().state_dict())
    assert method.merge_thresholds.tolist() == pytest.approx([0.9, 0.3])
    assert method.prune_thresholds.tolist() == pytest.approx([0.0, 0.2])


def test_images_with_different_counts_in_one_batch(tiny_vit):
    vit, images = tiny_vit(), torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(8))
    method = create("ltmp")
    model = DownsampledViT(vit, method, Schedule.stages(0.8, (0, 1, 2))).eval()
    with torch.no_grad():
        method.merge_thresholds.fill_(0.7)
        method.prune_thresholds.fill_(0.04)
        counts: list[list[int]] = []

        def observe(depth: int, tokens: Tokens) -> None:
            full = torch.ones_like(tokens.size) if tokens.valid is None else tokens.valid
            counts.append(full.sum(dim=1).tolist())

        logits = model(images, observe=observe)
        assert len(set(counts[0])) > 1  # otherwise this tests nothing
        for b in range(6):
            assert torch.allclose(model(images[b : b + 1])[0], logits[b], atol=1e-4)


def test_it_is_skipped_without_fine_tuning():
    config = load_config()
    chosen = {"models": ["digits_deit"], "baselines": ["none"], "methods": ["ltmp"], "keep": [0.5]}
    cells = cells_of(config.suite("embedded", chosen), config, [])
    assert cells[-1].variant.skipped
