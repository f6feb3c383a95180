"""Carrying out a plan: each cell without a checkpoint is trained, and the next begins whatever came of it."""

from __future__ import annotations

import copy
import os
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from tokbench.data.preprocessing import preprocessing_of
from tokbench.errors import UserError
from tokbench.finetune.job import Job
from tokbench.finetune.prepare import Plan, Task
from tokbench.finetune.training import STATE, train
from tokbench.finetune.training_images import DigitImages, TrainingImages, set_images
from tokbench.finetune.validation import Validation
from tokbench.finetune.watch import Unwatched, Watcher
from tokbench.measure.image_streams import Loading
from tokbench.names import EMBEDDED
from tokbench.results.lock import locked
from tokbench.results.training import TrainedCell, cell_folder, read_cell, write_cell
from tokbench.run.build import build_model
from tokbench.run.contain import MethodFailedError, contained
from tokbench.trained.reading import CHECKPOINTS
from tokbench.trained.saved import About, is_saved, read_about, write_trained
from tokbench.vit.backbone import DownsampledViT

STATE_EVERY = 300.0  # seconds between two saved states


def train_all(plan: Plan, out: Path, watcher: Watcher | None = None) -> list[TrainedCell]:
    """Train the cells of a plan that have no checkpoint yet, one after the other.

    Started by torchrun, the processes train each cell together; the first one writes files.

    Args:
        plan: What to train.
        out: The results directory.
        watcher: Shows the progress.

    Returns:
        What came of each cell, in the order of the plan.

    Raises:
        UserError: The directory cannot be written, another process writes to it, or the recipe does not fit.
        DataError: An image cannot be read.
    """
    watcher, trainer, results = watcher or Unwatched(), Trainer(plan, out), []
    with locked(out) if first_process() else nullcontext():
        for number, task in enumerate(plan.tasks):
            watcher.begin(number, task)
            results.append(trainer.train(task, watcher))
            watcher.end(number, results[-1])
    return results


def first_process() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


class Trainer:
    """Trains cells one by one, and keeps what they share: the decoded validation images of each model."""

    def __init__(self, plan: Plan, out: Path) -> None:
        """Begin.

        Args:
            plan: What to train.
            out: The results directory.
        """
        self._plan = plan
        self._out = out
        self._validations: dict[str, Validation | None] = {}

    def train(self, task: Task, watcher: Watcher) -> TrainedCell:
        """Train a cell, unless its checkpoint exists; what goes wrong with its method is in the result.

        Args:
            task: The cell.
            watcher: Shows the progress.

        Raises:
            UserError: The recipe does not fit, or the results directory cannot be written.
            DataError: An image cannot be read.
        """
        known = read_cell(self._out, task.stem) or _cell_of(task)
        if task.skipped or task.failed:
            return replace(known, reason=task.skipped or task.failed, skipped=bool(task.skipped))
        if is_trained(task, self._out):
            return known
        try:
            return contained(f"fine-tuning {task.cell}", partial(self._train, task, known, watcher), None)
        except MethodFailedError as failure:
            if isinstance(failure.error, UserError):
                raise failure.error from None
            return replace(known, reason=str(failure), after=None)

    def _train(self, task: Task, known: TrainedCell, watcher: Watcher) -> TrainedCell:
        device, folder = _device(self._plan), cell_folder(self._out, task.stem)
        model = fresh_model(task, self._plan).to(device)
        validation = self._validation(task)
        known = replace(known, reason="", after=None)
        if first_process():
            if known.before is None and validation is not None:
                known = replace(known, before=validation.top1(model.eval()))
            write_cell(known, self._out)
        suite, recipe = self._plan.suite, self._plan.recipe
        plain = self._plan.inputs.run.models[task.cell.model].vit
        outcome = train(
            Job(
                model=model,
                teacher=DownsampledViT(copy.deepcopy(plain)).eval() if recipe.distills else None,
                images=self._images(task),
                evaluate=None if validation is None else validation.top1,
                recipe=recipe,
                seed=task.about.seed,
                device=device,
                folder=folder,
                workers=suite.workers,
                state_every=STATE_EVERY,
            ),
            watcher.step,
        )
        if outcome.failed:
            return replace(known, reason=outcome.failed)
        known = replace(known, after=outcome.top1)
        if first_process():
            about = replace(task.about, epochs=outcome.epochs, steps=outcome.steps, top1=outcome.top1)
            write_trained(model, about, checkpoint_file(self._out, task))
            write_cell(known, self._out)
            (folder / STATE).unlink(missing_ok=True)  # the checkpoint has the weights
        return known

    def _images(self, task: Task) -> TrainingImages:
        plan = self._plan
        if plan.suite.data == EMBEDDED:
            return DigitImages()
        return set_images(plan.inputs.images, plan.inputs.run.models[task.cell.model].vit, plan.recipe)

    def _validation(self, task: Task) -> Validation | None:
        name, inputs, suite = task.cell.model, self._plan.inputs.run, self._plan.suite
        if name not in self._validations:
            loading = Loading(suite.accuracy_batch, suite.workers, suite.memory, suite.cache, False)
            self._validations[name] = (
                None
                if inputs.images is None
                else Validation(inputs.images, preprocessing_of(inputs.models[name].vit), loading)
            )
        return self._validations[name]


def fresh_model(task: Task, plan: Plan) -> DownsampledViT:
    """A cell's model before training, on the CPU: a copy of the pretrained one, its method's weights drawn by seed."""
    pretrained = plan.inputs.run.models[task.cell.model]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.about.seed)
        return build_model(task.cell, replace(pretrained, vit=copy.deepcopy(pretrained.vit)))


def checkpoint_file(out: Path, task: Task) -> Path:
    """Where a cell's checkpoint is."""
    return out / CHECKPOINTS / f"{task.stem}.safetensors"


def is_trained(task: Task, out: Path) -> bool:
    """Whether there is a checkpoint of exactly this cell."""
    file = checkpoint_file(out, task)
    if not (is_saved(file) and file.is_file()):
        return False
    try:
        about = read_about(file)
    except UserError:  # it is damaged: trained again, it is whole again
        return False
    return _before_training(about) == task.about


def _before_training(about: About) -> About:
    return replace(about, epochs=0, steps=0, top1=None)


def _device(plan: Plan) -> torch.device:
    """What this process trains on: of several processes on a node, each has a GPU of its own."""
    device = plan.inputs.run.device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if device.type == "cuda" and _several() else device


def _several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _cell_of(task: Task) -> TrainedCell:
    variant = task.cell.variant
    return TrainedCell(
        stem=task.stem,
        model=task.cell.model,
        method=variant.method,
        params=variant.params_text,
        schedule=variant.schedule,
        keep=task.about.keep,
        seed=task.about.seed,
    )
