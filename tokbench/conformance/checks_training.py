"""A check of what a method does in training: with all tokens in place, or with a loss of its own.

See `tokbench.conformance.checks_interface` for the definition of a check.
"""

from __future__ import annotations

import torch

from tokbench.conformance.cases import described, images, model_of, seeded
from tokbench.conformance.checks_machine import require_gradients
from tokbench.conformance.result import SkipError, require
from tokbench.conformance.subject import Subject
from tokbench.tokens import Tokens


def training(subject: Subject) -> None:
    """Tokens that stay in place in training have a presence; the loss is finite, and every weight gets a gradient."""
    model, pixels = model_of(subject).train(), images(batch=4)
    after: dict[int, Tokens] = {}
    method = model.downsampler
    assert method is not None
    with seeded(0):
        logits = model(pixels, observe=after.__setitem__)
    reduced = [after[depth] for depth in model.depths]
    loss = method.loss(reduced)
    if loss is None and all(tokens.presence is None for tokens in reduced):
        raise SkipError("the method trains by its forward, and has no loss of its own")
    require(bool(logits.isfinite().all()), "finite logits in training", "nan or inf")
    for depth, tokens in zip(model.depths, reduced, strict=True):
        with described(f"depth {depth}"):
            _require_presence(tokens)
    total = (logits * torch.linspace(-1, 1, logits.shape[1])).sum()
    if loss is not None:
        require(loss.ndim == 0, "a scalar loss", f"shape {tuple(loss.shape)}")
        require(bool(loss.isfinite()), "a finite loss", float(loss))
        total = total + loss
    total.backward()
    require_gradients(method)


def _require_presence(tokens: Tokens) -> None:
    """Check the presence of tokens that a method keeps in place; shapes are checked by the model."""
    presence = tokens.presence
    if presence is None:
        return
    inside = (presence >= 0) & (presence <= 1)  # false for nan
    require(bool(inside.all()), "presence in [0, 1]", f"{float(presence.min()):.3g} to {float(presence.max()):.3g}")
    require(bool((presence > 0).any(dim=1).all()), "at least one present token in each image", "none")
    require(bool((tokens.size > 0).all()), "positive sizes, also of absent tokens", float(tokens.size.min()))
