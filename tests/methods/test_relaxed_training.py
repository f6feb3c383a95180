"""Methods that train with all tokens in place: mixed precision, gradient checkpointing, and the order of images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_math import noisy
from torch import Tensor

from tokbench import DownsampledViT, Schedule, Tokens, create
from tokbench.notation import parse_call

RELAXED = ["dynamic_vit", "tps(score=predictor)", "ltmp", "dtem", "dtem(choice=soft)"]
MakeViT = Callable[..., Any]


def made(name: str, vit: Any) -> DownsampledViT:
    torch.manual_seed(0)
    call = parse_call(name)
    return DownsampledViT(vit, create(call.name, **call.named), Schedule.stages(0.5, (1, 2))).train()


def step(model: DownsampledViT, pixels: Tensor) -> Tensor:
    """Run one step, as a training loop does; returns the loss."""
    assert model.downsampler is not None
    after: dict[int, Tokens] = {}
    torch.manual_seed(5)
    logits = model(pixels, observe=after.__setitem__)
    own = model.downsampler.loss([after[depth] for depth in model.depths])
    loss = logits.float().square().mean() + (0 if own is None else own)
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("name", RELAXED)
def test_mixed_precision_gives_finite_gradients(name: str, tiny_vit: MakeViT):
    model = made(name, tiny_vit(global_pool="avg"))
    with torch.autocast("cpu", torch.bfloat16):
        loss = step(model, noisy(3, 3, 32, 32, seed=1))
    assert loss.isfinite()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", RELAXED)
def test_checkpointing_gives_the_same_gradients(name: str, tiny_vit: MakeViT):
    gradients = []
    for recompute in (False, True):
        model = made(name, tiny_vit())
        model.vit.set_grad_checkpointing(recompute)
        step(model, noisy(3, 3, 32, 32, seed=2))
        gradients.append({key: parameter.grad for key, parameter in model.named_parameters()})
    for key, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][key]), key


@pytest.mark.parametrize("name", RELAXED)
def test_a_step_lowers_the_loss(name: str, tiny_vit: MakeViT):
    # Along the negative gradient, with the same noise; straight-through gradients are not exact, so over a few steps.
    model, pixels = made(name, tiny_vit()), noisy(4, 3, 32, 32, seed=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        losses.append(float(step(model, pixels)))
        optimizer.step()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["ltmp", "dtem", "dtem(choice=soft)"])
def test_an_image_is_trained_the_same_alone_and_in_a_batch(name: str, tiny_vit: MakeViT):
    model, pixels = made(name, tiny_vit()).double(), noisy(4, 3, 32, 32, seed=4).double()
    together = model(pixels)
    for b in range(4):
        torch.testing.assert_close(model(pixels[b : b + 1])[0], together[b], rtol=1e-9, atol=1e-9)
