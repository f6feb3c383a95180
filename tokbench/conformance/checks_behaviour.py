"""Checks of how a method comes to its result: from its arguments alone, and each image by itself.

The first lines of `tokbench.conformance.checks_interface` say what a check is.
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
from tokbench.conformance.checks_interface import USUAL, accounts_hold
from tokbench.conformance.result import ReportError, SkipError, ViolationError, require
from tokbench.conformance.subject import Subject
from tokbench.downsampler import FIELDS, Context, Field, UndeclaredFieldError
from tokbench.tokens import Tokens
from tokbench.vit.noise import uniform

TOLERANCE = 1e-5  # of results in float64, which may be computed in float32 on the way
MODEL_TOLERANCE = 1e-4  # of a float32 model's logits


def mutation(subject: Subject) -> None:
    """The tokens and the context that a method is given are the same afterwards."""
    method, before = USUAL.method(subject), USUAL.tokens()
    before = replace(before, owner=before.owner.clone())  # expanded, it would refuse to be written to
    context = context_of(method, before)
    given = {name: getattr(before, name) for name in ("x", "size", "owner")}
    given |= {f"context.{name}": getattr(context, name) for name in FIELDS}
    copies = {name: tensor.clone() for name, tensor in given.items()}
    with torch.no_grad():
        method(before, USUAL.keep, context)
    for name, copy in copies.items():
        require(torch.equal(given[name], copy), f"{name} as it was", f"{_changed(given[name], copy)} other numbers")


def determinism(subject: Subject) -> None:
    """The same tokens are reduced alike twice, bit for bit."""
    method = USUAL.method(subject)
    _, first = reduced(subject, USUAL, method)
    _, second = reduced(subject, USUAL, method)
    _same(first, second, "the same result twice")


def memory(subject: Subject) -> None:
    """Nothing stays in a method from one image to the next."""
    steady(subject)
    model = model_of(subject)
    first = logits_of(model, images(0))
    logits_of(model, images(1))
    again = logits_of(model, images(0))
    same = torch.equal(first, again)
    require(same, "the same logits before and after other images", f"{float((first - again).abs().max()):.2g} apart")


def seeding(subject: Subject) -> None:
    """A method that declares itself stochastic changes with the noise, and no other one reads it."""
    method, before, asked = USUAL.method(subject), USUAL.tokens(), []

    def noisy(seed: int) -> Callable[[], Tensor]:
        def noise() -> Tensor:
            asked.append(seed)
            return uniform(seed, torch.arange(USUAL.batch), 1, USUAL.n)

        return noise

    with torch.no_grad():
        results = [method(before, USUAL.keep, context_of(method, before, noise=noisy(seed))) for seed in (0, 1)]
    if not method.stochastic:
        require(not asked, "context.noise unread, since stochastic is False", "a method that reads it")
        return
    require(bool(asked), "context.noise to be read, since stochastic is True", "a method that does not")
    differ = not (torch.equal(results[0].x, results[1].x) and torch.equal(results[0].owner, results[1].owner))
    require(differ, "another result with other noise, since stochastic is True", "the same")


def noise(subject: Subject) -> None:
    """No randomness but context.noise: the generators of torch, numpy and Python are left alone."""
    method, results = USUAL.method(subject), []
    for seed in (1, 2):
        with _global_seeds(seed):
            before = _generators()
            results.append(reduced(subject, USUAL, method)[1])
            used = [name for name, state in _generators().items() if state != before[name]]
        require(not used, "randomness from context.noise alone", f"numbers drawn from {', '.join(used)}")
    _same(results[0], results[1], "the same result under other global seeds")


def batch_independence(subject: Subject) -> None:
    """An image is reduced alike alone and in a batch."""
    steady(subject)
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
                require(near, f"image {b} alone to have the {name} that it has in a batch of {case.batch}", "others")


def undeclared(subject: Subject) -> None:
    """A method reads of the context what its needs declare, and all of that."""
    method, before = USUAL.method(subject), USUAL.tokens()
    full = context_of(method, before)
    read: set[str] = set()

    class Watched(Context):
        """Remembers what is read."""

        def _field(self, name: Field) -> Tensor:
            read.add(name)
            if name not in method.needs:
                raise UndeclaredFieldError(f"context.{name} was read")
            return full._field(name)

    context = Watched(depth=full.depth, depths=full.depths, stage=full.stage, noise=lambda: full.noise)
    try:
        with torch.no_grad():
            method(before, USUAL.keep, context)
    except UndeclaredFieldError as error:
        asked = ViolationError(f"expected needs to declare what is read, got {error}")
        raise asked.with_traceback(error.__traceback__) from None
    idle = sorted(method.needs - read)
    if idle:
        raise ReportError(f"needs declares {', '.join(idle)}, which is computed and never read")


def state_dict(subject: Subject) -> None:
    """A second instance with the first one's state gives the same output."""
    steady(subject)
    first, second = model_of(subject, seed=0), model_of(subject, seed=1)
    assert first.downsampler is not None
    assert second.downsampler is not None
    second.downsampler.load_state_dict(first.downsampler.state_dict())
    same = torch.equal(logits_of(first, images()), logits_of(second, images()))
    require(same, "equal logits after load_state_dict", "others: what setup draws must be a parameter or a buffer")


def adaptive(subject: Subject) -> None:
    """Where counts differ from image to image, padding stays padding and has no say."""
    if not subject.create().adaptive:
        raise SkipError("adaptive is False")
    model = model_of(subject)
    together = logits_of(model, images(batch=4))
    for b in range(4):
        alone = logits_of(model, images(batch=4)[b : b + 1], torch.tensor([b]))[0]
        near = torch.allclose(alone, together[b], rtol=MODEL_TOLERANCE, atol=MODEL_TOLERANCE)
        require(near, f"image {b} to have the logits alone that it has in a batch", "others")
    _padding_is_mute(subject)


def steady(subject: Subject) -> None:
    """Go on only where the same tokens give the same result.

    Raises:
        SkipError: They do not.
    """
    method = USUAL.method(subject)
    (_, first), (_, second) = reduced(subject, USUAL, method), reduced(subject, USUAL, method)
    try:
        _same(first, second, "")
    except ViolationError:
        raise SkipError("results differ from call to call: see 'determinism'") from None


def _padding_is_mute(subject: Subject) -> None:
    """Padding that holds other numbers changes nothing."""
    case = Case(batch=2, dtype=torch.float64)
    method, before = case.method(subject), case.tokens()
    valid = torch.arange(case.n) < torch.tensor([[case.n], [case.n - 9]])
    owner = before.owner.masked_fill(~valid, -1)
    results = []
    context = context_of(method, replace(before, owner=owner, valid=valid))
    for junk in (0.0, 5.0):
        x = before.x.clone()
        x[:, before.n_prefix :][~valid] += junk
        padded = replace(before, x=x, owner=owner, valid=valid)
        with torch.no_grad():
            results.append(method(padded, case.keep, context))
    for b in range(2):
        a, c = (_present(_images(one, slice(b, b + 1)), "patches") for one in results)
        near = a.shape == c.shape and torch.allclose(a, c, rtol=TOLERANCE, atol=TOLERANCE)
        require(near, "the same tokens whatever the padding holds", "others")
    accounts_hold(padded, results[-1])


@contextmanager
def _global_seeds(seed: int) -> Iterator[None]:
    """The global generators start from a seed, and are afterwards what they were."""
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


def _same(first: Tokens, second: Tokens, expected: str) -> None:
    for name in ("x", "size", "owner"):
        a, b = getattr(first, name), getattr(second, name)
        same = a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
        require(same, expected, f"another {name}")


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
