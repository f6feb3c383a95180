"""Checks of how a method runs: precisions, devices, gradients, waiting and compiling.

The first lines of `tokbench.conformance.checks_interface` say what a check is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tokbench.conformance.cases import Case, context_of, described, images, model_of, reduced
from tokbench.conformance.checks_behaviour import steady
from tokbench.conformance.checks_interface import USUAL, accounts_hold, sound_usually
from tokbench.conformance.host import CallWatch, HostSyncError, OperatorWatch
from tokbench.conformance.result import ReportError, SkipError, ViolationError, require
from tokbench.conformance.subject import Subject
from tokbench.downsampler import FIELDS, Context

TOLERANCE = 1e-5
LARGE = 300.0  # what the residual stream of a trained ViT reaches; its square outgrows float16's 65504


def dtypes(subject: Subject) -> None:
    """Half precision comes out as it went in, and finite, also where tokens are as large as in trained models."""
    sound_usually(subject)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for scale in (1.0, LARGE):
            case = Case(dtype=dtype, scale=scale)
            before, after = reduced(subject, case)
            with described(f"{case}, tokens of about {scale:g}"):
                require(after.x.dtype == dtype, f"x of {dtype}", after.x.dtype)
                require(after.size.dtype == before.size.dtype, f"size of {before.size.dtype}", after.size.dtype)
                require(bool(after.x.isfinite().all()), "finite tokens (compute in float32)", "nan or inf")
                accounts_hold(before, after)


def devices(subject: Subject) -> None:
    """Everything that a method makes is made on the tokens' device."""
    if torch.cuda.is_available():
        case = replace(USUAL, device="cuda")
        _, after = reduced(subject, case)
        for name in ("x", "size", "owner"):
            tensor = getattr(after, name)
            require(tensor.is_cuda, f"{name} on cuda", tensor.device)
            require(bool(tensor.isfinite().all()), f"finite {name}", "nan or inf")
        return
    method = USUAL.method(subject)
    try:
        with FakeTensorMode(allow_non_fake_inputs=False), torch.no_grad():
            before = replace(USUAL, device="cuda").tokens()
            method(before, USUAL.keep, context_of(method, before))
    except Exception as error:
        if "device" in str(error) and "cpu" in str(error):
            raise
        raise SkipError(f"no CUDA device here, and a simulated one stops at {type(error).__name__}") from None
    raise SkipError("no CUDA device here; on a simulated one, which has no numbers, everything is in its place")


def gradients(subject: Subject) -> None:
    """Gradients pass from the tokens that come out to those that go in, and to every weight of a trained method."""
    method, before = USUAL.method(subject), USUAL.tokens()
    before = replace(before, x=before.x.requires_grad_())
    after = method(before, USUAL.keep, context_of(method, before))
    require(after.patches.requires_grad, "patches that pass gradients on", "detached ones")
    (gradient,) = torch.autograd.grad((after.patches * torch.linspace(1, 2, after.x.shape[2])).sum(), before.x)
    require(bool(gradient.isfinite().all()), "finite gradients of the tokens", "nan or inf")
    reached = (gradient[:, before.n_prefix :] != 0).flatten(1).any(dim=1)
    require(bool(reached.all()), "gradients that reach the patches", "none")
    if method.trained:
        _weights_learn(subject)


def host_sync(subject: Subject) -> None:
    """The method never makes a GPU wait for the program: no look at values, no shape that depends on them."""
    method, before = USUAL.method(subject), USUAL.tokens()
    context = context_of(method, before)
    try:
        with torch.no_grad(), OperatorWatch(), CallWatch():  # type: ignore[no-untyped-call]
            method(before, USUAL.keep, context)
        if torch.cuda.is_available():
            case = replace(USUAL, device="cuda")
            method, before = case.method(subject), case.tokens()
            context = context_of(method, before)
            method(before, case.keep, context)  # libraries may wait when they are first used
            with torch.no_grad(), _sync_is_error():
                method(before, case.keep, context)
    except HostSyncError as error:
        waiting = ViolationError(f"expected nothing that a GPU must wait for, got {error}")
        raise waiting.with_traceback(error.__traceback__) from None


def compiles(subject: Subject) -> None:
    """torch.compile takes the method as one graph; told of, not required."""
    steady(subject)
    method, before = USUAL.method(subject), USUAL.tokens()
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
        expected = method(before, USUAL.keep, ready)
        try:
            came = torch.compile(method.forward, backend="eager", fullgraph=True)(before, USUAL.keep, ready)
        except Exception as error:  # dynamo raises whatever it likes, and nothing of it is a failure
            first = str(error).strip().splitlines()[0]
            raise ReportError(f"torch.compile(fullgraph=True) does not take it: {first}") from None
    near = torch.allclose(expected.x, came.x, rtol=TOLERANCE, atol=TOLERANCE)
    require(near, "the same result when compiled", "another")


def _weights_learn(subject: Subject) -> None:
    """Every weight of a method in training has a finite gradient of a model's logits."""
    model = model_of(subject).train()
    pixels = images(batch=4)
    (model(pixels) * torch.linspace(-1, 1, 5)).sum().backward()
    assert model.downsampler is not None
    still = []
    for name, parameter in model.downsampler.named_parameters():
        require(parameter.grad is not None, f"a gradient of the weight '{name}' in training", "none")
        assert parameter.grad is not None
        require(bool(parameter.grad.isfinite().all()), f"a finite gradient of '{name}'", "nan or inf")
        if not bool(parameter.grad.any()):
            still.append(name)
    if still:
        raise ReportError(f"the gradients of {', '.join(still)} are all zero on these images")


@contextmanager
def _sync_is_error() -> Iterator[None]:
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    except RuntimeError as error:
        if "synchroniz" in str(error):
            raise HostSyncError(str(error).splitlines()[0]).with_traceback(error.__traceback__) from None
        raise
    finally:
        torch.cuda.set_sync_debug_mode(mode)


@contextmanager
def _quiet() -> Iterator[None]:
    """Dynamo's own account of what it could not compile stays out of the way."""
    logger = logging.getLogger("torch._dynamo")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
