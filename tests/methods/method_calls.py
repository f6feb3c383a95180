"""Calls of a method on random tokens, without a model."""

import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor

from tokbench import Context, create
from tokbench.errors import UserError
from tokbench.registry import discover
from tokbench.vit.noise import uniform

HEADS, WIDTH = 2, 4  # of the attention in the contexts below
DIM = HEADS * WIDTH


def variants() -> Iterator[Any]:
    """Every method with every combination of its Literal and bool parameters (one at a time if there are many)."""
    for name, cls in discover()[0].items():
        hints = get_type_hints(cls.__init__)
        choices: dict[str, tuple[Any, ...]] = {}
        for parameter in inspect.signature(cls).parameters:
            if get_origin(hints[parameter]) is Literal:
                choices[parameter] = get_args(hints[parameter])
            elif hints[parameter] is bool:
                choices[parameter] = (False, True)
        every = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
        if len(every) > 16:
            every = [{}] + [{parameter: value} for parameter, values in choices.items() for value in values]
        for params in every:
            try:
                create(name, **params)
            except UserError:
                continue  # a combination that the method rejects
            yield pytest.param((name, params), id=f"{name}({','.join(f'{k}={v}' for k, v in params.items())})")


Variant = tuple[str, dict[str, Any]]
VARIANTS = list(variants())
EACH = pytest.mark.parametrize("variant", VARIANTS)


def noisy(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def context_of(
    x: Tensor,
    n: int,
    needs: frozenset[str],
    depth: int = 1,
    ids: Tensor | None = None,
    noise: Callable[[], Tensor] | None = None,
) -> Context:
    """A context with the self-attention of x (B, P+N, D)."""
    batch, length, _ = x.shape
    prefix = length - n
    q, k, v = (
        (x.detach().float() @ noisy(DIM, DIM, seed=10 + part)).view(batch, length, HEADS, WIDTH).transpose(1, 2)
        for part in range(3)
    )
    matrix = (q @ k.mT / WIDTH**0.5).softmax(dim=-1)
    fields = {
        "keys": k[:, :, prefix:].mean(dim=1).to(x.dtype),
        "values": v[:, :, prefix:].to(x.dtype),
        "attention": matrix.to(x.dtype),
        "cls_attention": matrix[:, :, 0, prefix:].mean(dim=1),
        "received": matrix[..., prefix:].sum(dim=(1, 2)),
        "update": x[:, prefix:].relu(),
    }
    ids = torch.arange(batch) if ids is None else ids
    return Context(
        depth=depth,
        depths=(1, 2),
        stage=depth - 1,
        noise=noise or (lambda: uniform(0, ids, depth, n)),
        **{name: fields[name] for name in needs},
    )
