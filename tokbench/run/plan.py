"""Writing down what will be measured, and on what, before anything is measured."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from pathlib import Path

from tokbench.downsampler import Downsampler
from tokbench.measure.environment import describe
from tokbench.names import PLAIN
from tokbench.notation import parameters_text, split_parameters
from tokbench.registry import METHODS, method_class
from tokbench.results.directory import ENVIRONMENT, write_images
from tokbench.results.plan import PLAN, ImagesInfo, MethodInfo, Plan, PlannedRow, PublishedNumber, plan_json
from tokbench.results.store import write_json
from tokbench.run.prepare import Prepared, Row
from tokbench.vit.models import full_name


def plan_of(prepared: Prepared) -> Plan:
    """The plan as results directories keep it."""
    images = prepared.images
    methods = dict.fromkeys(row.cell.variant.method for row in prepared.rows)
    return Plan(
        suite=prepared.suite,
        device=prepared.device.type,
        images=None if images is None else ImagesInfo(images.name, len(images), images.identity),
        rows=tuple(_planned(row, prepared.suite.dtype) for row in prepared.rows),
        methods={name: method_info(method_class(name)) for name in methods if name != PLAIN},
        models={name: full_name(name) for name in prepared.models},
    )


def write_plan(prepared: Prepared, directory: Path) -> None:
    """Write the plan, the environment and the images' names and classes."""
    write_json(directory / PLAN, plan_json(plan_of(prepared)))
    write_json(directory / ENVIRONMENT, describe(prepared.device))
    if prepared.images is not None:
        write_images(directory, dict(zip(prepared.images.names, prepared.images.labels, strict=True)))


def method_info(method: type[Downsampler]) -> MethodInfo:
    """What a reader needs to know of a method without importing it."""
    parameters = inspect.signature(method).parameters
    defaults = {name: one.default for name, one in parameters.items() if one.default is not one.empty}
    return MethodInfo(
        defaults=split_parameters(parameters_text(defaults)),
        paper=method.paper.title if method.paper else "",
        own=not method.__module__.startswith(f"{METHODS}."),
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


def _planned(row: Row, dtype: str) -> PlannedRow:
    return PlannedRow(
        id=row.cell.row_id(dtype),
        parameters=dict(row.cell.variant.params),
        attention_kernel=row.attention_kernel,
        params_m=row.params_m,
        adaptive=row.cell.variant.adaptive,
        skipped=row.cell.variant.skipped,
        failed=row.failed,
        keys=row.keys,
    )
