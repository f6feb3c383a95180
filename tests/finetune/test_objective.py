"""The terms of the loss, against plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

import tokbench
from tokbench.finetune.objective import divergence, loss_of, token_distance
from tokbench.finetune.recipes import load_recipe
from tokbench.tokens import Tokens
from tokbench.vit.backbone import DownsampledViT

TinyViT = Callable[..., VisionTransformer]
DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.rand(3, 3, 32, 32, generator=DRAW)
IDS = torch.arange(3)


def test_the_divergence_is_the_mean_over_images() -> None:
    logits, answers = torch.randn(2, 4, 5, generator=DRAW, dtype=torch.float64)
    expected = 0.0
    for own, taught in zip(logits.softmax(1).tolist(), answers.softmax(1).tolist(), strict=True):
        expected += sum(q * (math.log(q) - math.log(p)) for p, q in zip(own, taught, strict=True)) / 4
    assert divergence(logits, answers).item() == pytest.approx(expected)


def test_each_patch_is_compared_with_the_token_that_it_is_in() -> None:
    x, taught = torch.randn(1, 3, 2, generator=DRAW), torch.randn(1, 5, 2, generator=DRAW)
    owner = torch.tensor([[0, 1, -1, 0]])  # the third patch was dropped
    tokens = Tokens(x, torch.tensor([[2.0, 1.0]]), owner, (2, 2))
    pairs = [(0, 0), (1, 1), (3, 0)]
    each = [(x[0, 1 + token] - taught[0, 1 + patch]).square().mean().item() for patch, token in pairs]
    assert token_distance(x, taught, tokens).item() == pytest.approx(sum(each) / 3)


def test_all_terms_are_added_and_the_teacher_learns_nothing(tiny_vit: TinyViT) -> None:
    recipe = load_recipe("digits", {"classify": 0.5, "distill": 2.0, "distill_tokens": 3.0, "smoothing": 0.0})
    model, teacher = tokbench.reduce(tiny_vit(), "evit", keep=0.5, schedule="stages(at=1-2)"), tiny_vit(std=0.3)
    targets = torch.rand(3, 10, generator=DRAW).softmax(1)
    plain = DownsampledViT(teacher)
    loss = loss_of(model, plain, IMAGES, targets, IDS, recipe)
    last = model.encode(IMAGES, IDS)
    logits = model.classify(last)
    entropy = -(targets * logits.log_softmax(1)).sum(1).mean()
    taught = plain.encode(IMAGES).x
    apart = token_distance(model.vit.norm(last.x), teacher.norm(taught), last)
    expected = 0.5 * entropy + 2 * divergence(logits, teacher(IMAGES)) + 3 * apart
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.autograd.backward(loss)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert model.vit.head.weight.grad is not None


def test_the_methods_own_term_is_added(tiny_vit: TinyViT) -> None:
    recipe = load_recipe("digits", {"smoothing": 0.1})
    model = tokbench.reduce(tiny_vit(), "dynamic_vit", keep=0.5, schedule="stages(at=1-2)").train()
    labels, after = torch.tensor([1, 2, 3]), []
    torch.manual_seed(5)
    loss = loss_of(model, None, IMAGES, labels, IDS, recipe)
    torch.manual_seed(5)
    last = model.encode(IMAGES, IDS, lambda depth, tokens: after.append(tokens) if depth in model.depths else None)
    assert model.downsampler is not None
    own = model.downsampler.loss(after)
    assert own is not None
    assert own > 0
    expected = F.cross_entropy(model.classify(last), labels, label_smoothing=0.1) + own
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
