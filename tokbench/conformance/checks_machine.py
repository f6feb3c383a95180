"""Checks of how a method runs: precision, gradients and compilation.

See `tokbench.conformance.checks_interface` for the definition of a check.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from tokbench.conformance.cases import Case, context_of, described, images, model_of, reduced, seeded
from tokbench.conformance.checks_behaviour import require_deterministic
from tokbench.conformance.checks_interface import DEFAULT_CASE, require_consistent, require_default_case
from tokbench.conformance.result import ReportError, require
from tokbench.conformance.subject import Subject
from tokbench.context import FIELDS, Context
from tokbench.downsampler import Downsampler

TOLERANCE = 1e-5
LARGE = 300.0  # typical of a trained ViT's residual stream; its square exceeds float16's maximum, 65504


def dtypes(subject: Subject) -> None:
    """The data type is kept and results are finite in half precision, even for tokens as large as in trained models."""
    require_default_case(subject)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for scale in (1.0, LARGE):
            case = Case(dtype=dtype, scale=scale)
            before, after = reduced(subject, case)
            with described(f"{case}, tokens of about {scale:g}"):
                require(after.x.dtype == dtype, f"x of {dtype}", after.x.dtype)
                require(after.size.dtype == before.size.dtype, f"size of {before.size.dtype}", after.size.dtype)
                require(bool(after.x.isfinite().all()), "finite tokens (compute in float32)", "nan or inf")
                require_consistent(before, after)


def gradients(subject: Subject) -> None:
    """Gradients flow from the returned tokens to the input tokens, and to every weight of a trained method."""
    method, before = DEFAULT_CASE.method(subject), DEFAULT_CASE.tokens()
    before = replace(before, x=before.x.requires_grad_())
    after = method(before, DEFAULT_CASE.keep, context_of(method, before))
    require(after.patches.requires_grad, "patches with a gradient", "detached ones")
    (gradient,) = torch.autograd.grad((after.patches * torch.linspace(1, 2, after.x.shape[2])).sum(), before.x)
    require(bool(gradient.isfinite().all()), "finite gradients of the tokens", "nan or inf")
    reached = (gradient[:, before.n_prefix :] != 0).flatten(1).any(dim=1)
    require(bool(reached.all()), "nonzero gradients of the input patches", "zero")
    if method.trained:
        _require_weight_gradients(subject)


def compiles(subject: Subject) -> None:
    """torch.compile accepts the method as one graph; reported, not required."""
    require_deterministic(subject)
    method, before = DEFAULT_CASE.method(subject), DEFAULT_CASE.tokens()
    context = context_of(method, before)
    ready = Context(
        depth=context.depth,
        depths=context.depths,
        stage=context.stage,
        noise=context.noise,
        **{name: getattr(context, name) for name in FIELDS},
    )
    torch._dynamo.reset()
    with torch.no_grad(), _quiet():
        expected = method(before, DEFAULT_CASE.keep, ready)
        try:
            compiled = torch.compile(method.forward, backend="eager", fullgraph=True)(before, DEFAULT_CASE.keep, ready)
        except Exception as error:  # dynamo raises many types, none of which is a failure
            first = str(error).strip().splitlines()[0]
            raise ReportError(f"torch.compile(fullgraph=True) fails: {first}") from None
    near = torch.allclose(expected.x, compiled.x, rtol=TOLERANCE, atol=TOLERANCE)
    require(near, "the same result when compiled", "a different one")


def _require_weight_gradients(subject: Subject) -> None:
    """In training, a model's logits give every weight of the method a finite gradient."""
    model = model_of(subject).train()
    pixels = images(batch=4)
    with seeded(0):  # training may draw from torch's global generator
        (model(pixels) * torch.linspace(-1, 1, 5)).sum().backward()
    assert model.downsampler is not None
    require_gradients(model.downsampler)


def require_gradients(method: Downsampler) -> None:
    """Check, after a backward pass, that every weight of a method has a finite gradient.

    Raises:
        ViolationError: One has none, or it is not finite.
        ReportError: Some are zero, which depends on the images.
    """
    zero = []
    for name, parameter in method.named_parameters():
        require(parameter.grad is not None, f"a gradient of the weight '{name}' in training", "none")
        assert parameter.grad is not None
        require(bool(parameter.grad.isfinite().all()), f"a finite gradient of '{name}'", "nan or inf")
        if not bool(parameter.grad.any()):
            zero.append(name)
    if zero:
        raise ReportError(f"the gradients of {', '.join(zero)} are all zero on these images")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide dynamo's log messages about code that it cannot compile."""
    logger = logging.getLogger("torch._dynamo")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
