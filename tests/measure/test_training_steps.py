"""The training steps that are timed and weighed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

import tokbench
from tokbench.measure.latency import measure_latency
from tokbench.measure.training import LEARNING_RATE, training_step
from tokbench.vit.backbone import DownsampledViT

TinyViT = Callable[..., VisionTransformer]
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(3)


def test_a_step_is_one_of_adamw_on_the_cross_entropy(tiny_vit: TinyViT) -> None:
    model = tokbench.reduce(tiny_vit(), "tome", keep=0.5, schedule="stages(at=1-2)")
    own = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(own.parameters(), lr=LEARNING_RATE)
    step = training_step(model)
    for _ in range(3):
        loss = F.cross_entropy(own(IMAGES), LABELS)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        with torch.inference_mode():  # as the timer does
            assert step(IMAGES).item() == pytest.approx(loss.item(), abs=1e-6)


def test_the_model_stays_as_it_is(tiny_vit: TinyViT) -> None:
    model = DownsampledViT(tiny_vit())
    before = copy.deepcopy(model.state_dict())
    step = training_step(model)
    measure_latency(step, training_step(model), [IMAGES], 0.01, 1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_features_can_be_trained_without_a_head(tiny_vit: TinyViT) -> None:
    step = training_step(DownsampledViT(tiny_vit(num_classes=0)))
    assert torch.isfinite(step(IMAGES))
