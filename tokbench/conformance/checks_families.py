"""Checks that a method works in other families of models than the plain ViT."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tokbench.conformance.cases import described, images, model_of, pooling_vit, reductions_of, rotary_vit
from tokbench.conformance.checks_interface import require_consistent
from tokbench.conformance.result import SkipError, require
from tokbench.conformance.subject import Subject
from tokbench.errors import UserError
from tokbench.tokens import Tokens
from tokbench.vit.adapters import TimmViT
from tokbench.vit.backbone import DownsampledViT


def rotary_positions(subject: Subject) -> None:
    """The method works in a model with rotary positions, and tokens of one patch keep that patch's position."""
    for step in _reductions(subject, rotary_vit):
        _require_positions(step)


def attention_pooling(subject: Subject) -> None:
    """The method works in a model that pools by attention and has no class token."""
    _reductions(subject, pooling_vit)


def _reductions(subject: Subject, make: Callable[[], TimmViT]) -> list[Tokens]:
    """The tokens after each reduction in a model, which are consistent, and whose logits are finite."""
    try:
        _run(model_of(subject))
    except Exception as error:  # each problem is reported once
        raise SkipError("the method fails in a plain ViT: see 'second_stage'") from error
    try:
        model = model_of(subject, make=make)
    except UserError as error:
        raise SkipError(str(error)) from error
    return _run(model)


def _run(model: DownsampledViT) -> list[Tokens]:
    """Run a model and check what its method returned."""
    with torch.inference_mode():
        logits, reductions = reductions_of(model, images())
    require(bool(logits.isfinite().all()), "finite logits", "nan or inf")
    for step in reductions:
        with described(f"depth {step.depth}, N={step.before.n_patches}, K={step.keep}"):
            require_consistent(step.before, step.after)
    return [step.after for step in reductions]


def _require_positions(tokens: Tokens) -> None:
    """Check that each token of one patch has the rotary position of that patch."""
    assert tokens.rotary is not None
    for owner, rotary, size in zip(tokens.owner.tolist(), tokens.rotary.tolist(), tokens.size.tolist(), strict=True):
        for token, position in enumerate(rotary):
            patches = [patch for patch, of in enumerate(owner) if of == token]
            if len(patches) == 1 and size[token] == 1:
                require(position == patches[0], f"token {token} at its own patch {patches[0]}", f"patch {position}")
