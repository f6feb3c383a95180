"""Checks of what a method declares and of the tokens that it returns: shapes, counts, `size` and `owner`.

A check returns if there is no problem; otherwise it raises an exception of `tokbench.conformance.result`, or the
method's own exception. Users see its name and the first line of its docstring.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin

import torch
from torch import Tensor

from tokbench.conformance.cases import Case, described, images, logits_of, model_of, reduced, reductions_of
from tokbench.conformance.result import ReportError, SkipError, ViolationError, require
from tokbench.conformance.subject import Subject
from tokbench.context import FIELDS
from tokbench.downsampler import Claim, Paper
from tokbench.errors import UserError
from tokbench.names import SITES
from tokbench.parameters import parameters_of
from tokbench.registry import name_problem
from tokbench.schedule import Schedule
from tokbench.tokens import Tokens

FLAGS = ("proportional", "stochastic", "trained", "calibrated", "adaptive", "ignores_keep")
ROUNDING = 1e-4  # of sums of sizes
DEFAULT_CASE = Case()

Check = Callable[[Subject], None]


def imports(subject: Subject) -> None:
    """The file can be imported and registers a method."""
    if subject.problem:
        raise ViolationError(subject.problem)


def declares(subject: Subject) -> None:
    """Name, site, needs, flags and parameters are declared correctly."""
    cls = subject.cls
    problem = name_problem(cls.name)
    require(not problem, "a name that methods can have", f"'{cls.name}': {problem}")
    for parameter in inspect.signature(cls).parameters.values():
        annotated, defaulted = parameter.annotation is not parameter.empty, parameter.default is not parameter.empty
        require(annotated and defaulted, "every parameter to have an annotation and a default", f"'{parameter}'")
    for name, declared in parameters_of(cls).items():
        require(not declared.problem, f"a parameter '{name}' that can be written and read", declared.problem)
    method = subject.create()
    require(bool(method.sites) and set(method.sites) <= set(SITES), f"sites among {', '.join(SITES)}", method.sites)
    require(method.site in method.sites, f"a site among {', '.join(method.sites)}", f"'{method.site}'")
    require(isinstance(method.needs, frozenset), "needs to be a frozenset", type(method.needs).__name__)
    unknown = sorted(method.needs - set(FIELDS))
    require(not unknown, f"needs among {', '.join(FIELDS)}", f"'{', '.join(unknown)}'")
    for flag in FLAGS:
        require(isinstance(getattr(method, flag), bool), f"{flag} to be True or False", getattr(method, flag))
    require(isinstance(cls.paper, Paper | None), "paper to be a Paper or None", repr(cls.paper))
    require(all(isinstance(claim, Claim) for claim in cls.claims), "claims to be a tuple of Claim", cls.claims)
    require(cls.schedule is None or _is_schedule(cls.schedule), "a schedule as for --schedule", cls.schedule)


def documents(subject: Subject) -> None:
    """The class and each parameter are documented."""
    require(bool((subject.cls.__doc__ or "").strip()), "a docstring in the class", "none")
    text = subject.cls.__init__.__doc__ or ""
    for name in inspect.signature(subject.cls).parameters:
        require(f"{name}:" in text, f"'{name}:' under Args in the docstring of __init__", "no such line")


def runs(subject: Subject) -> None:
    """The method reduces ordinary tokens without an error."""
    _, after = reduced(subject, DEFAULT_CASE)
    require(isinstance(after, Tokens), "Tokens", type(after).__name__)


def shapes(subject: Subject) -> None:
    """The result has the shapes and types of Tokens, and the layout that layout_after promises."""
    for case in (DEFAULT_CASE, Case((3, 5), 7, prefix=2, batch=1)):
        before, after = reduced(subject, case)
        with described(case):
            _require_shapes(subject, case, before, after)


def counts(subject: Subject) -> None:
    """The number of tokens returned is what count() says, for several N and K."""
    for case in (Case((6, 6), 1), Case((6, 6), 18), Case((6, 6), 33), Case((3, 4), 5), Case((2, 8), 7)):
        before, after = reduced(subject, case)
        method = case.method(subject)
        promised = method.count(case.keep, case.n, 1, case.grid)
        with described(case):
            require(isinstance(promised, int) and 1 <= promised <= case.n, "count() between 1 and N", promised)
            if method.adaptive:
                require(after.n_patches <= before.n_patches, "no more than N tokens", after.n_patches)
            else:
                require(after.n_patches == promised, f"{promised} tokens, as count() says", after.n_patches)


def prefix(subject: Subject) -> None:
    """Prefix tokens are unchanged, bit for bit."""
    for number, dtype in itertools.product((0, 1, 2), (torch.float32, torch.bfloat16)):
        if number == 0 and "cls_attention" in subject.create().needs:
            continue  # there is no class token
        case = Case(prefix=number, dtype=dtype)
        before, after = reduced(subject, case)
        with described(case):
            require(after.n_prefix == number, f"{number} prefix tokens", after.n_prefix)
            same = torch.equal(after.prefix, before.prefix)
            require(same, "the prefix tokens unchanged", "" if same else _difference(after.prefix, before.prefix))


def bookkeeping(subject: Subject) -> None:
    """Sizes and owners are valid and consistent with each other."""
    for case in (DEFAULT_CASE, Case((3, 4), 5), Case((6, 6), 1)):
        before, after = reduced(subject, case)
        with described(case):
            require_consistent(before, after)


def removes(subject: Subject) -> None:
    """Tokens are removed, not masked: later blocks receive fewer tokens."""
    before, after = reduced(subject, replace(DEFAULT_CASE, keep=DEFAULT_CASE.n // 2))
    left = after.n_patches if after.valid is None else int(after.valid.sum(dim=1).max())
    if subject.create().adaptive and left == before.n_patches:
        raise ReportError(f"none of {left} tokens was removed; an adaptive method may decide so")
    require(left < before.n_patches, f"fewer than {before.n_patches} tokens for K={before.n_patches // 2}", left)
    model = model_of(subject)
    seen: list[int] = []
    model.vit.blocks[-1].mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    logits_of(model, images())
    most = before.n_prefix + before.n_patches
    require(seen[0] < most, f"fewer than {most} tokens at the last block's MLP", seen[0])


def smallest(subject: Subject) -> None:
    """Very few tokens can be reduced, down to two tokens and K=1."""
    require_default_case(subject)
    for grid, keep in (((1, 2), 1), ((1, 3), 1), ((3, 1), 2), ((2, 2), 1), ((2, 2), 3)):
        _check_case(subject, Case(grid, keep, batch=1))


def full_range(subject: Subject) -> None:
    """Every K from 1 to N-1 works."""
    require_default_case(subject)
    for keep in range(1, 12):
        _check_case(subject, Case((3, 4), keep, batch=2))


def second_stage(subject: Subject) -> None:
    """The method works in a model, a second time on its own output, at each of its sites."""
    for site in subject.create().sites:
        model = model_of(subject, site=site)
        with torch.inference_mode(), described(f"site {site}"):
            logits, reductions = reductions_of(model, images())
            require(bool(logits.isfinite().all()), "finite logits", "nan or inf")
            for step in reductions:
                with described(f"site {site}, depth {step.depth}, N={step.before.n_patches}, K={step.keep}"):
                    require_consistent(step.before, step.after)


def choices(subject: Subject) -> None:
    """Every value of every Literal and bool parameter works."""
    options = options_of(subject.cls)
    if not options:
        raise SkipError("the method has no Literal or bool parameter")
    require_default_case(subject)
    for name, value in options:
        other = replace(subject, params={**subject.params, name: value})
        try:
            other.create()
        except UserError:
            continue  # the method rejects this combination with the other parameters
        with described(f"{name}={value}"):
            for case in (DEFAULT_CASE, Case((1, 2), 1)):
                _check_case(other, case)


def require_consistent(before: Tokens, after: Tokens) -> None:
    """Check `size` and `owner` after a reduction against those before.

    For every method: an owner is a token or -1; a dropped patch stays dropped; patches that shared a token still share
    one; sizes are finite, positive except at padding, and their sum does not grow; padding owns no patches. If all
    sizes are whole numbers, each size equals the number of patches that the token owns, so every token owns at least
    one. With soft pooling, sizes are fractions of patches, and a token may own none.

    Raises:
        ViolationError: One of these does not hold.
    """
    n = after.n_patches
    owner, size = after.owner, after.size
    low, high = int(owner.min()), int(owner.max())
    require(low >= -1 and high < n, f"owner from -1 to {n - 1}", f"{low} to {high}: owner must refer to the new tokens")
    valid = torch.ones_like(size, dtype=torch.bool) if after.valid is None else after.valid
    require(bool((size[valid].isfinite() & (size[valid] > 0)).all()), "positive sizes", f"{float(size[valid].min()):g}")
    old_sum, new_sum = before.size.sum(dim=1), (size * valid).sum(dim=1)
    worst = int((new_sum - old_sum).argmax())
    fits = bool((new_sum <= old_sum * (1 + ROUNDING)).all())
    require(fits, f"sizes that sum to at most {float(old_sum[worst]):g}", f"{float(new_sum[worst]):g}")
    require(
        not bool(((before.owner < 0) & (owner >= 0)).any()), "dropped patches to stay dropped", "a token that owns one"
    )
    # Patches whose new token differs from that of the first patch of the same old token.
    first = _first_patch(before.owner, before.n_patches)
    apart = (before.owner >= 0) & (owner != owner.gather(1, first.gather(1, before.owner.clamp_min(0))))
    require(not bool(apart.any()), "the patches of a token to stay in one token", "patches in several tokens")
    owned = torch.zeros(len(size), n + 1).scatter_add(1, torch.where(owner < 0, n, owner), torch.ones_like(owner) * 1.0)
    owned = owned[:, :n]
    require(not bool((owned[~valid] > 0).any()), "padding to own no patches", "padding that owns some")
    whole = bool((size[valid] == size[valid].round()).all()) and bool((before.size == before.size.round()).all())
    wrong = valid & (owned != size)
    if whole and bool(wrong.any()):
        b, j = map(int, wrong.nonzero()[0])
        raise ViolationError(
            f"expected token {j}, of size {float(size[b, j]):g}, to own as many patches, "
            f"got {int(owned[b, j])} in owner"
        )


def require_default_case(subject: Subject) -> None:
    """Skip the check if the method fails on ordinary tokens, so that each problem is reported once.

    Raises:
        SkipError: It fails on ordinary tokens.
    """
    try:
        _check_case(subject, DEFAULT_CASE)
    except Exception as error:
        raise SkipError("already fails on ordinary tokens: see the other failures") from error


def _check_case(subject: Subject, case: Case) -> None:
    """Check shapes, count, prefix, finite numbers, sizes and owners."""
    before, after = reduced(subject, case)
    with described(case):
        _require_shapes(subject, case, before, after)
        method = case.method(subject)
        promised = method.count(case.keep, case.n, 1, case.grid)
        right = method.adaptive or after.n_patches == promised
        require(right, f"{promised} tokens, as count() says", after.n_patches)
        require(torch.equal(after.prefix, before.prefix), "the prefix tokens unchanged", "different ones")
        require(bool(after.x.isfinite().all()), "finite tokens", "nan or inf")
        require_consistent(before, after)


def _require_shapes(subject: Subject, case: Case, before: Tokens, after: Tokens) -> None:
    method = case.method(subject)
    batch, n = case.batch, after.n_patches
    for name, tensor, shape, dtype in (
        ("x", after.x, (batch, case.prefix + n, before.x.shape[2]), case.dtype),
        ("size", after.size, (batch, n), torch.float32),
        ("owner", after.owner, (batch, case.n), torch.int64),
    ):
        require(tuple(tensor.shape) == shape, f"{name} of shape {shape}", tuple(tensor.shape))
        require(tensor.dtype == dtype, f"{name} of {dtype}", tensor.dtype)
    require(after.grid == before.grid, f"grid {before.grid}, the image's", after.grid)
    promised = method.layout_after(case.keep, case.grid) if n < case.n else after.layout
    require(after.layout == promised, f"layout {promised}, as layout_after() says", after.layout)
    on_grid = after.layout is None or after.layout[0] * after.layout[1] == n
    require(on_grid, f"a layout of {n} tokens, or None", after.layout)
    if not method.adaptive:
        require(after.valid is None, "valid=None, since adaptive is False", "a mask")
    elif after.valid is not None:
        fits = after.valid.dtype == torch.bool and after.valid.shape == after.size.shape
        require(fits, f"valid of torch.bool and shape {(batch, n)}", f"{after.valid.dtype}, {tuple(after.valid.shape)}")
        require(bool(after.valid.any(dim=1).all()), "at least one token per image", "an image without tokens")


def _first_patch(owner: Tensor, n: int) -> Tensor:
    """(B, N), the first patch that each token owns, from owner (B, N0); 0 if it owns none."""
    patch = torch.arange(owner.shape[1]).expand_as(owner)
    column = torch.where(owner < 0, n, owner)
    first = torch.full((len(owner), n + 1), owner.shape[1]).scatter_reduce(1, column, patch, "amin")
    return (first % owner.shape[1])[:, :n]


def _difference(a: Tensor, b: Tensor) -> str:
    return f"differences up to {float((a - b).abs().max()):.2g}" if a.shape == b.shape else f"shape {tuple(a.shape)}"


def _is_schedule(text: str) -> bool:
    """Whether the text is a valid schedule, with or without a keep."""
    for keep in (None, 0.5):
        try:
            Schedule.parse(text, keep)
        except UserError:
            continue
        return True
    return False


def options_of(cls: type) -> list[tuple[str, Any]]:
    """Every value of every `Literal` and `bool` parameter, as (parameter, value)."""
    found: list[tuple[str, Any]] = []
    for name, declared in parameters_of(cls).items():
        hint = declared.hint
        values = (False, True) if hint is bool else get_args(hint) if get_origin(hint) is Literal else ()
        found += [(name, value) for value in values]
    return found
