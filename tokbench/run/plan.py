"""Writing down what will be measured, and on what, before anything is measured."""

from __future__ import annotations

from pathlib import Path

import timm

from tokbench.data.sets import ImageSet
from tokbench.measure.environment import describe
from tokbench.model_names import place_of
from tokbench.names import PLAIN
from tokbench.registry import method_class
from tokbench.results.directory import ENVIRONMENT, write_images
from tokbench.results.plan import PLAN, ImagesInfo, MethodInfo, Plan, PlannedRow, plan_json
from tokbench.results.store import write_json
from tokbench.run.method_info import method_info
from tokbench.run.prepare import Prepared, Row
from tokbench.suite import Suite
from tokbench.values import json_value
from tokbench.vit.models import Pretrained, full_name


def plan_of(prepared: Prepared) -> Plan:
    """The plan as results directories keep it."""
    images = prepared.images
    methods = dict.fromkeys(row.cell.variant.method for row in prepared.rows)
    return Plan(
        suite=prepared.suite,
        device=prepared.device.type,
        images=None if images is None else _images_info(images, prepared.classes),
        rows=tuple(_planned(row, prepared.suite.dtype) for row in prepared.rows),
        methods={name: _info(name, prepared) for name in methods if name != PLAIN},
        models={name: _known_as(name, model, prepared.suite) for name, model in prepared.models.items()},
    )


def _images_info(images: ImageSet, classes: int) -> ImagesInfo:
    counted = classes if images.classes is None else len(images.classes)
    return ImagesInfo(images.name, len(images), images.identity, counted, images.class_names)


def write_plan(prepared: Prepared, directory: Path) -> None:
    """Write the plan, the environment and the images' names and classes."""
    write_json(directory / PLAN, plan_json(plan_of(prepared)))
    write_json(directory / ENVIRONMENT, describe(prepared.device))
    if prepared.images is not None:
        write_images(directory, dict(zip(prepared.images.names, prepared.images.labels, strict=True)))


def _known_as(name: str, model: Pretrained, suite: Suite) -> str:
    """The name under which others publish numbers of a model; no such name where it has another head or image size."""
    known = full_name(name)
    config = timm.models.get_pretrained_cfg(known) if place_of(name) is None else None
    own_size = None if config is None else config.input_size[-1]
    if suite.img_size not in (None, own_size):
        return f"{known} at {suite.img_size} pixels"
    if config is not None and config.num_classes != model.classes:
        return f"{known} with {model.classes} classes"
    return known


def _info(name: str, prepared: Prepared) -> MethodInfo:
    """What a reader needs to know of a method; less where it cannot be created."""
    broken = any(row.cell.variant.failed for row in prepared.rows if row.cell.variant.method == name)
    return MethodInfo(own=True) if broken else method_info(method_class(name))


def _planned(row: Row, dtype: str) -> PlannedRow:
    file = row.cell.variant.fine_tuned
    return PlannedRow(
        id=row.cell.row_id(dtype),
        parameters={name: json_value(value) for name, value in row.cell.variant.params},
        attention_kernel=row.attention_kernel,
        params_m=row.params_m,
        adaptive=row.cell.variant.adaptive,
        skipped=row.cell.variant.skipped,
        failed=row.failed,
        training=None if file is None else file.training,
        keys=row.keys,
        remarks=row.remarks,
    )
