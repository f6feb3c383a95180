"""Checks of a method's behaviour: its result depends only on its arguments, and on each image independently.

See `tokbench.conformance.checks_interface` for the definition of a check.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tokbench.conformance.cases import Case, context_of, images, logits_of, model_of, reduced
from tokbench.conformance.checks_interface import DEFAULT_CASE, require_consistent
from tokbench.conformance.result import ReportError, SkipError, ViolationError, require
from tokbench.conformance.subject import Subject
from tokbench.context import FIELDS, Context, Field, UndeclaredFieldError
from tokbench.tokens import Tokens
from tokbench.vit.noise import uniform

TOLERANCE = 1e-5  # of float64 results, which may have float32 intermediate values
MODEL_TOLERANCE = 1e-4  # of the logits of a float32 model


def mutation(subject: Subject) -> None:
    """The method does not change the tokens and the context that it receives."""
    method, before = DEFAULT_CASE.method(subject), DEFAULT_CASE.tokens()
    before = replace(before, owner=before.owner.clone())  # an expanded tensor would not allow writes
    context = context_of(method, before)
    given = {name: getattr(before, name) for name in ("x", "size", "owner")}
    given |= {f"context.{name}": getattr(context, name) for name in FIELDS}
    copies = {name: tensor.clone() for name, tensor in given.items()}
    with torch.no_grad():
        method(before, DEFAULT_CASE.keep, context)
    for name, copy in copies.items():
        require(torch.equal(given[name], copy), f"{name} unchanged", f"{_changed(given[name], copy)} changed numbers")


def determinism(subject: Subject) -> None:
    """The same tokens give the same result twice, bit for bit."""
    method = DEFAULT_CASE.method(subject)
    _, first = reduced(subject, DEFAULT_CASE, method)
    _, second = reduced(subject, DEFAULT_CASE, method)
    _require_same(first, second, "the same result twice")


def stateless(subject: Subject) -> None:
    """The method keeps no state between images."""
    require_deterministic(subject)
    model = model_of(subject)
    first = logits_of(model, images(0))
    logits_of(model, images(1))
    again = logits_of(model, images(0))
    same = torch.equal(first, again)
    require(
        same,
        "the same logits before and after other images",
        f"a difference of {float((first - again).abs().max()):.2g}",
    )


def seeding(subject: Subject) -> None:
    """The result depends on the noise if and only if the method declares stochastic = True."""
    method, before, noise_reads = DEFAULT_CASE.method(subject), DEFAULT_CASE.tokens(), []

    def noisy(seed: int) -> Callable[[], Tensor]:
        def noise() -> Tensor:
            noise_reads.append(seed)
            return uniform(seed, torch.arange(DEFAULT_CASE.batch), 1, DEFAULT_CASE.n)

        return noise

    with torch.no_grad():
        results = [method(before, DEFAULT_CASE.keep, context_of(method, before, noise=noisy(seed))) for seed in (0, 1)]
    if not method.stochastic:
        require(not noise_reads, "context.noise not to be read, since stochastic is False", "a read")
        return
    require(bool(noise_reads), "context.noise to be read, since stochastic is True", "no read")
    differ = not (torch.equal(results[0].x, results[1].x) and torch.equal(results[0].owner, results[1].owner))
    require(differ, "a different result with different noise, since stochastic is True", "the same result")


def noise(subject: Subject) -> None:
    """The method uses no randomness except context.noise, that is no generator of torch, numpy or Python."""
    method, results = DEFAULT_CASE.method(subject), []
    for seed in (1, 2):
        with _global_seeds(seed):
            before = _generators()
            results.append(reduced(subject, DEFAULT_CASE, method)[1])
            used = [name for name, state in _generators().items() if state != before[name]]
        require(not used, "randomness only from context.noise", f"numbers drawn from {', '.join(used)}")
    _require_same(results[0], results[1], "the same result with different global seeds")


def batch_independence(subject: Subject) -> None:
    """An image gives the same result alone and in a batch."""
    require_deterministic(subject)
    case = Case(batch=4, dtype=torch.float64)
    method, before, ids = case.method(subject), case.tokens(), torch.tensor([9, 4, 70, 2])
    with torch.no_grad():
        together = method(before, case.keep, context_of(method, before, ids=ids))
        for b in range(case.batch):
            one = _images(before, slice(b, b + 1))
            alone = method(one, case.keep, context_of(method, one, ids=ids[b : b + 1]))
            mine = _images(together, slice(b, b + 1))
            for name in ("patches", "size"):
                a, c = _present(mine, name), _present(alone, name)
                near = a.shape == c.shape and torch.allclose(a, c, rtol=TOLERANCE, atol=TOLERANCE)
                require(
                    near, f"image {b} to have the same {name} alone and in a batch of {case.batch}", f"different {name}"
                )


def undeclared(subject: Subject) -> None:
    """The method reads exactly those fields of the context that it declares in needs."""
    method, before = DEFAULT_CASE.method(subject), DEFAULT_CASE.tokens()
    full = context_of(method, before)
    read: set[str] = set()

    class Watched(Context):
        """Records the fields that are read."""

        def _field(self, name: Field) -> Tensor:
            read.add(name)
            if name not in method.needs:
                raise UndeclaredFieldError(f"context.{name} is read, but not declared")
            return full._field(name)

    context = Watched(depth=full.depth, depths=full.depths, stage=full.stage, noise=lambda: full.noise)
    try:
        with torch.no_grad():
            method(before, DEFAULT_CASE.keep, context)
    except UndeclaredFieldError as error:
        violation = ViolationError(f"expected all fields that are read to be declared in needs: {error}")
        raise violation.with_traceback(error.__traceback__) from None
    unread = sorted(method.needs - read)
    if unread:
        raise ReportError(f"needs declares {', '.join(unread)}, computed but never read")


def state_dict(subject: Subject) -> None:
    """A second instance gives the same output after loading the first one's state_dict."""
    require_deterministic(subject)
    first, second = model_of(subject, seed=0), model_of(subject, seed=1)
    assert first.downsampler is not None
    assert second.downsampler is not None
    second.downsampler.load_state_dict(first.downsampler.state_dict())
    same = torch.equal(logits_of(first, images()), logits_of(second, images()))
    require(
        same,
        "equal logits after load_state_dict",
        "different ones: random values of setup must be parameters or buffers",
    )


def adaptive(subject: Subject) -> None:
    """If counts differ between images, padding stays padding and has no influence."""
    if not subject.create().adaptive:
        raise SkipError("adaptive is False")
    model = model_of(subject)
    together = logits_of(model, images(batch=4))
    for b in range(4):
        alone = logits_of(model, images(batch=4)[b : b + 1], torch.tensor([b]))[0]
        near = torch.allclose(alone, together[b], rtol=MODEL_TOLERANCE, atol=MODEL_TOLERANCE)
        require(near, f"image {b} to have the same logits alone and in a batch", "different logits")
    _require_inert_padding(subject)


def require_deterministic(subject: Subject) -> None:
    """Skip the check if the same tokens give different results.

    Raises:
        SkipError: The results differ.
    """
    method = DEFAULT_CASE.method(subject)
    (_, first), (_, second) = reduced(subject, DEFAULT_CASE, method), reduced(subject, DEFAULT_CASE, method)
    try:
        _require_same(first, second, "")
    except ViolationError:
        raise SkipError("results differ between calls: see 'determinism'") from None


def _require_inert_padding(subject: Subject) -> None:
    """The values at padding have no influence on the result."""
    case = Case(batch=2, dtype=torch.float64)
    method, before = case.method(subject), case.tokens()
    valid = torch.arange(case.n) < torch.tensor([[case.n], [case.n - 9]])
    owner = before.owner.masked_fill(~valid, -1)
    results = []
    context = context_of(method, replace(before, owner=owner, valid=valid))
    for offset in (0.0, 5.0):
        x = before.x.clone()
        x[:, before.n_prefix :][~valid] += offset
        padded = replace(before, x=x, owner=owner, valid=valid)
        with torch.no_grad():
            results.append(method(padded, case.keep, context))
    for b in range(2):
        a, c = (_present(_images(one, slice(b, b + 1)), "patches") for one in results)
        near = a.shape == c.shape and torch.allclose(a, c, rtol=TOLERANCE, atol=TOLERANCE)
        require(near, "the same tokens for any values at padding", "different tokens")
    require_consistent(padded, results[-1])


@contextmanager
def _global_seeds(seed: int) -> Iterator[None]:
    """Seed the global generators, and restore their states afterwards."""
    python, array = random.getstate(), np.random.get_state(legacy=False)
    try:
        with torch.random.fork_rng():
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)


def _generators() -> dict[str, bytes]:
    """The states of the global generators."""
    array = np.random.get_state(legacy=False)["state"]
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": array["key"].tobytes() + bytes(str(array["pos"]), "ascii"),
        "random": repr(random.getstate()).encode(),
    }


def _require_same(first: Tokens, second: Tokens, expected: str) -> None:
    for name in ("x", "size", "owner"):
        a, b = getattr(first, name), getattr(second, name)
        same = a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
        require(same, expected, f"a different {name}")


def _images(tokens: Tokens, part: slice) -> Tokens:
    """Some of a batch's images."""
    valid = None if tokens.valid is None else tokens.valid[part]
    return replace(tokens, x=tokens.x[part], size=tokens.size[part], owner=tokens.owner[part], valid=valid)


def _present(tokens: Tokens, name: str) -> Tensor:
    """The patches or sizes of one image, without padding."""
    values: Tensor = getattr(tokens, name)[0]
    return values if tokens.valid is None else values[tokens.valid[0]]


def _changed(a: Tensor, b: Tensor) -> str:
    return str(int((a != b).sum())) if a.shape == b.shape else "all"
