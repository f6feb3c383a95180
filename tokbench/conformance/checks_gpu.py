"""Checks of how a method runs on a GPU: a simulated one, and a real one where there is one.

See `tokbench.conformance.checks_interface` for the definition of a check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from tokbench.conformance import simulated_gpu as simulation
from tokbench.conformance.cases import (
    context_of,
    described,
    images,
    model_of,
    plain_vit,
    pooling_vit,
    rotary_vit,
)
from tokbench.conformance.checks_behaviour import MODEL_TOLERANCE, require_deterministic
from tokbench.conformance.checks_interface import DEFAULT_CASE, options_of
from tokbench.conformance.host_sync import HostSyncError
from tokbench.conformance.result import SkipError, ViolationError, require
from tokbench.conformance.simulated_gpu import GpuTensor, MixedDevicesError, NotSimulatedError, Wait
from tokbench.conformance.subject import Subject
from tokbench.errors import UserError
from tokbench.measure.dispatch import count_dispatched
from tokbench.parameters import parameters_of
from tokbench.tokens import Tokens
from tokbench.vit import reduction
from tokbench.vit.adapters import TimmViT
from tokbench.vit.backbone import DownsampledViT

ELSEWHERE = "fails on a simulated GPU: see the other failures"


def devices(subject: Subject) -> None:
    """All tensors are created on the tokens' device."""
    if torch.cuda.is_available():
        case = replace(DEFAULT_CASE, device="cuda")
        method, before = case.method(subject), case.tokens()
        _require_on_gpu(method(before, case.keep, context_of(method, before)))
    try:
        _require_on_gpu(_reduced_on_simulated_gpu(subject))
    except MixedDevicesError as error:
        raise _violation("all tensors on the tokens' device (device=tokens.x.device)", error) from None
    except ViolationError:
        raise
    except Exception as error:  # each problem is reported once
        raise SkipError(ELSEWHERE) from error


def host_sync(subject: Subject) -> None:
    """The method needs no host synchronisation: it reads no values, and no shape depends on values."""
    try:
        if torch.cuda.is_available():
            case = replace(DEFAULT_CASE, device="cuda")
            method, before = case.method(subject), case.tokens()
            context = context_of(method, before)
            method(before, case.keep, context)  # libraries may synchronise on first use
            with torch.no_grad(), _sync_raises():
                method(before, case.keep, context)
        _reduced_on_simulated_gpu(subject, _refuse)
    except HostSyncError as error:
        raise _violation("no host synchronisation", error) from None
    except Exception as error:  # each problem is reported once
        raise SkipError(ELSEWHERE) from error


def simulated_gpu(subject: Subject) -> None:
    """On a GPU, here a simulated one, a model gives what it gives on a CPU, without waiting and with the same MACs."""
    require_deterministic(subject)
    for check in (devices, host_sync):
        try:
            check(subject)
        except ViolationError as error:
            raise SkipError(f"already fails outside of a model: see '{check.__name__}'") from error
        except SkipError:
            continue
    for where, variant, make in _variants(subject):
        try:
            model = model_of(variant, make=make)
        except UserError:
            continue  # the method rejects these parameters, or this model
        with described(where):
            _require_same_on_gpu(model)


def _variants(subject: Subject) -> Iterator[tuple[str, Subject, Callable[[], TimmViT]]]:
    """What to compare: a description, the method, and the model."""
    yield "a plain ViT", subject, plain_vit
    yield "rotary positions", subject, rotary_vit
    yield "pooling by attention", subject, pooling_vit
    given = {name: declared.default for name, declared in parameters_of(subject.cls).items()} | dict(subject.params)
    for name, value in options_of(subject.cls):
        if value != given[name]:
            yield f"{name}={value}", replace(subject, params={**subject.params, name: value}), plain_vit


def _require_same_on_gpu(model: DownsampledViT) -> None:
    """Compare logits and MACs of a model on both devices."""
    try:
        with torch.inference_mode(), count_dispatched(model) as on_cpu:
            expected = model(images())
    except Exception as error:
        raise SkipError("the method fails in a model: see 'second_stage'") from error
    try:
        with simulation.simulated_gpu() as gpu:
            moved, pixels = gpu.to_gpu(model), gpu.to_gpu(images())
            gpu.on_wait = _refuse
            with count_dispatched(moved) as on_gpu:
                logits = moved(pixels)
    except NotSimulatedError as error:
        raise SkipError(str(error)) from error
    except HostSyncError as error:
        raise _violation("no host synchronisation in a model", error) from None
    except MixedDevicesError as error:
        raise _violation("all tensors of a model on one device", error) from None
    require(isinstance(logits, GpuTensor), "logits on the GPU", logits.device)
    difference = float((logits.numbers - expected).abs().max())
    require(difference <= MODEL_TOLERANCE, "the same logits on a GPU and a CPU", f"differences up to {difference:.2g}")
    for share in ("backbone", "method"):
        cpu, there = (getattr(counter.shares, share).total() for counter in (on_cpu, on_gpu))
        require(cpu == there, f"the same MACs of the {share} on a GPU and a CPU", f"{there:,} and {cpu:,}")


def _reduced_on_simulated_gpu(subject: Subject, on_wait: Callable[[Wait], None] | None = None) -> Tokens:
    """The tokens after one reduction."""
    method, before = DEFAULT_CASE.method(subject), DEFAULT_CASE.tokens()
    with simulation.simulated_gpu() as gpu:
        method = gpu.to_gpu(method)
        before = Tokens.from_sequence(gpu.to_gpu(before.x), before.grid, before.n_prefix)
        context = context_of(method, before)
        gpu.on_wait = on_wait or gpu.on_wait
        return method(before, DEFAULT_CASE.keep, context)


def _require_on_gpu(after: Tokens) -> None:
    for name in ("x", "size", "owner"):
        tensor = getattr(after, name)
        require(tensor.is_cuda, f"{name} on cuda", tensor.device)


def _refuse(wait: Wait) -> None:
    """Raise an error at a wait that is not the host's, which must ask for the length of an adaptive method's images."""
    if wait.file != reduction.__file__:
        raise HostSyncError(wait.cause)


def _violation(expected: str, error: Exception) -> ViolationError:
    """A violation where the error was raised."""
    return ViolationError(f"expected {expected}, got {error}").with_traceback(error.__traceback__)


@contextmanager
def _sync_raises() -> Iterator[None]:
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
