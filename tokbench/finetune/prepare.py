"""From cells to models that can be trained: methods tried in their models, constants set, budgets solved."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tokbench.config import Config
from tokbench.errors import UserError
from tokbench.finetune.cells import cells_to_train
from tokbench.finetune.inputs import TrainingInputs, open_training_inputs
from tokbench.finetune.order import check_batch
from tokbench.finetune.recipes import Recipe
from tokbench.model_names import file_stem
from tokbench.names import CALIBRATED, PLAIN
from tokbench.registry import Broken, discover
from tokbench.run.build import build_model
from tokbench.run.calibration import with_constants
from tokbench.run.cells import Cell
from tokbench.run.contain import MethodFailedError, contained
from tokbench.run.prepare import silent, solved
from tokbench.run.search import Tell
from tokbench.run.variant import Variant
from tokbench.suite import Suite
from tokbench.trained.saved import About
from tokbench.values import json_value

KEY = 8  # characters of the hash in the names of files
NOTHING_TO_TRAIN = "the recipe trains the method's weights alone, and there are none"


@dataclass(frozen=True)
class Task:
    """A cell that is trained.

    Attributes:
        cell: With its budget solved and its constants set.
        about: What its checkpoint says, before the first epoch.
        skipped: Why it is not trained; empty where it is.
        failed: Why the method cannot be put into the model; empty where it can.
    """

    cell: Cell
    about: About
    skipped: str = ""
    failed: str = ""

    @property
    def stem(self) -> str:
        """The name of its files without an ending: model, method, keep, and a hash of everything else."""
        about = self.about
        keep = "" if about.keep is None or about.method == PLAIN else f"-{about.keep:.3g}"
        key = hashlib.sha256(json.dumps(asdict(about), sort_keys=True).encode()).hexdigest()[:KEY]
        return f"{file_stem(about.model)}-{about.method}{keep}-{key}"


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that a training run needs.

    Attributes:
        suite: The settings.
        recipe: How each cell is trained.
        inputs: What cells are trained on.
        tasks: In the order of training.
        plugins: The user's files and folders of methods.
        broken: Plugins that could not be imported.
    """

    suite: Suite
    recipe: Recipe
    inputs: TrainingInputs
    tasks: tuple[Task, ...]
    plugins: tuple[Path, ...]
    broken: tuple[Broken, ...]


def plan_training(
    suite: Suite, config: Config, recipe: Recipe, plugins: Sequence[Path] = (), tell: Tell = silent
) -> Plan:
    """Find the methods, plan the cells, and load and check everything they need.

    Args:
        suite: What to train, and on what.
        config: Holds the methods' default parameters.
        recipe: How to train each cell.
        plugins: The user's files and folders of methods.
        tell: Gets what takes long, to show it.

    Raises:
        UserError: A setting is wrong, a batch does not fit the images, or a model, its weights, the device or the data
            cannot be opened.
    """
    known, broken = discover(plugins)
    try:
        cells = cells_to_train(suite, config, list(known), broken=bool(broken))
    except UserError as error:  # the method that is missing may be one of theirs
        reasons = "".join(f"; {one.source} could not be imported: {one.reason}" for one in broken)
        raise UserError(f"{error}{reasons}") from None
    inputs = open_training_inputs(suite)
    check_batch(recipe, len(inputs.images), int(os.environ.get("WORLD_SIZE", "1")))
    return Plan(suite, recipe, inputs, tasks_of(cells, recipe, inputs, tell), tuple(plugins), broken)


def tasks_of(cells: Sequence[Cell], recipe: Recipe, inputs: TrainingInputs, tell: Tell = silent) -> tuple[Task, ...]:
    """Each cell with its budget solved and its constants set, and what its checkpoint will say.

    Args:
        cells: What to train.
        recipe: How.
        inputs: On what.
        tell: Gets what takes long, to show it.

    Raises:
        UserError: A plain model cannot be built, or more than 1 % of the images cannot be read.
    """
    tried: dict[tuple[str, Variant], tuple[Variant, str, str]] = {}
    for cell in cells:
        place = cell.model, cell.variant
        if place not in tried:
            tell(f"building {cell.variant.method} in {cell.model}")
            tried[place] = _tried(cell, recipe, inputs)
    assert inputs.run.calibration is not None
    inputs.run.calibration.forget_images()
    tasks = []
    for cell in cells:
        variant, skipped, failed = tried[cell.model, cell.variant]
        own = replace(cell, variant=variant)
        tasks.append(Task(own, _about(own, recipe, inputs), skipped, failed))
    return tuple(tasks)


def _tried(cell: Cell, recipe: Recipe, inputs: TrainingInputs) -> tuple[Variant, str, str]:
    """The variant that can be built, why it is not trained, and why it cannot be built."""
    if cell.variant.failed or cell.variant.skipped:
        return cell.variant, cell.variant.skipped, cell.variant.failed
    try:
        variant, has_weights = contained(f"building {cell}", partial(_ready, cell, inputs), None)
    except MethodFailedError as failure:
        if not isinstance(failure.error, UserError):
            return cell.variant, "", str(failure)
        if cell.variant.method == PLAIN:
            raise failure.error from None
        return cell.variant, str(failure.error), ""
    return variant, NOTHING_TO_TRAIN if recipe.frozen_epochs == "all" and not has_weights else "", ""


def _ready(cell: Cell, inputs: TrainingInputs) -> tuple[Variant, bool]:
    """The cell's variant with its budget solved, its method calibrated and put into the model once.

    Also whether the method has weights of its own.
    """
    run = inputs.run
    model = run.models[cell.model]
    cell = solved(cell, run)
    if cell.variant.regime == CALIBRATED:
        assert run.calibration is not None
        cell = with_constants(cell, model, run.calibration, run.device)
    method = build_model(cell, model).downsampler
    return cell.variant, method is not None and any(True for _ in method.parameters())


def _about(cell: Cell, recipe: Recipe, inputs: TrainingInputs) -> About:
    variant, images = cell.variant, inputs.images
    params: dict[str, Any] = json_value(dict(variant.params))
    fields: dict[str, Any] = json_value(recipe.model_dump(mode="json"))
    return About(
        model=cell.model,
        weights=inputs.run.models[cell.model].identity,
        method=variant.method,
        params=params,
        schedule=variant.schedule,
        keep=None if variant.method == PLAIN else variant.keep,
        site=str(variant.site),
        position=variant.position,
        seed=cell.seed or 0,
        recipe=fields,
        data={"name": images.name, "images": len(images), "identity": images.identity},
        epochs=0,
        steps=0,
    )
