"""Training steps: what `measure.latency` and `measure.memory` time and weigh, instead of a forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench.measure.call_timer import Forward
from tokbench.measure.memory import Build
from tokbench.tokens import Tokens
from tokbench.vit.backbone import DownsampledViT

LEARNING_RATE = 1e-6  # changes the weights too little to change the work


def training_step(model: DownsampledViT) -> Callable[[Tensor], Tensor]:
    """A function that trains a copy of a model by one step on a batch, and returns the loss.

    A step is the forward pass in training mode, the cross entropy with arbitrary labels and the method's own term, the
    backward pass, and AdamW's update of all parameters. Features stand for logits where the model has no head.

    Args:
        model: Stays as it is.
    """
    own = copy.deepcopy(model).train()
    for parameter in own.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(own.parameters(), lr=LEARNING_RATE)

    def step(images: Tensor) -> Tensor:
        # The timer runs inference.
        with torch.inference_mode(False), torch.enable_grad():
            loss = _loss(own, images)
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def training_build(build: Build) -> Build:
    """What another process builds a training step from, given what it builds the model from."""
    return partial(_build_step, build)


def _build_step(build: Build) -> tuple[Forward, Tensor]:
    model, images = build()
    assert isinstance(model, DownsampledViT)
    return training_step(model), images


def _loss(model: DownsampledViT, images: Tensor) -> Tensor:
    after: dict[int, Tokens] = {}
    logits = model(images, observe=after.__setitem__)
    labels = torch.arange(len(images), device=images.device) % logits.shape[1]
    loss = F.cross_entropy(logits, labels)
    method = model.downsampler
    own = None if method is None else method.loss([after[depth] for depth in model.depths])
    return loss if own is None else loss + own
