"""What a reader needs to know of a method without importing it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tokbench.downsampler import Downsampler
from tokbench.notation import parameters_text, split_parameters
from tokbench.parameters import parameters_of
from tokbench.results.plan import MethodInfo, PublishedNumber
from tokbench.sources import comes_with_tokbench
from tokbench.vit.models import full_name


def method_info(method: type[Downsampler]) -> MethodInfo:
    """What a reader needs to know of a method without importing it."""
    defaults = {name: one.default for name, one in parameters_of(method).items() if not one.required}
    return MethodInfo(
        defaults=split_parameters(parameters_text(defaults)),
        paper=method.paper.title if method.paper else "",
        own=not comes_with_tokbench(method),
        claims=tuple(
            PublishedNumber(
                full_name=full_name(one.model),
                model=one.model,
                regime=one.regime,
                gmacs=_number(one.gmacs),
                top1=_number(one.top1),
                source=one.source,
                schedule=one.schedule,
                keep=one.keep,
                params=one.params,
            )
            for one in method.claims
        ),
    )


def infos(methods: Iterable[type[Downsampler]]) -> dict[str, MethodInfo]:
    """The same of several methods, by name."""
    return {method.name: method_info(method) for method in methods}


def _number(value: float | None) -> float | None:
    """JSON has no NaN."""
    return None if value is None or math.isnan(value) else value
