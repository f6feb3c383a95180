"""Distributed training: the cells of a plan as tasks on a Ray cluster.

A worker opens the images again and trains one cell with the code of a local run. It writes the checkpoint, the log and
the state of the cell into the results directory, which all nodes must see. A cell whose worker has died goes on from
its last saved state.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from tokbench.distributed.ray_run import absolute_paths
from tokbench.errors import UserError
from tokbench.finetune.inputs import open_training_inputs
from tokbench.finetune.prepare import Plan, Task
from tokbench.finetune.recipes import Recipe
from tokbench.finetune.run import Trainer
from tokbench.finetune.watch import Unwatched, Watcher
from tokbench.registry import discover
from tokbench.results.lock import locked
from tokbench.results.training import TrainedCell
from tokbench.suite import Suite

RETRIES = 20  # of a cell whose worker died


def train_on_ray(plan: Plan, out: Path, watcher: Watcher) -> list[TrainedCell]:
    """Train the cells of a plan that have no checkpoint yet, on the cluster that is connected.

    Args:
        plan: What to train.
        out: The results directory, on a disk that all nodes see.
        watcher: Shows each cell that is done.

    Returns:
        What came of each cell, in the order of the plan.

    Raises:
        UserError: A worker cannot read the data, the weights or a plugin, or the directory cannot be written.
    """
    import ray

    on_gpu = plan.inputs.run.device.type == "cuda"
    # A process that has used a GPU stays on it, whichever GPU Ray gives the next cell: so a new process for each.
    remote: Any = ray.remote(max_calls=1 if on_gpu else 0)(_train_cell)
    resources = {"num_gpus": 1} if on_gpu else {"num_cpus": plan.suite.threads or torch.get_num_threads()}
    suite = absolute_paths(plan.suite, plan.inputs.run.device.type)
    plugins = tuple(path.resolve() for path in plan.plugins)
    with locked(out):
        waiting = {
            remote.options(max_retries=RETRIES, **resources).remote(task, suite, plan.recipe, plugins, out.resolve()): (
                number,
                task,
            )
            for number, task in enumerate(plan.tasks)
        }
        results: dict[int, TrainedCell] = {}
        while waiting:
            done, _ = ray.wait(list(waiting))
            for reference in done:
                number, task = waiting.pop(reference)
                results[number] = _result(reference)
                watcher.begin(len(results) - 1, task)
                watcher.end(len(results) - 1, results[number])
    return [results[number] for number in range(len(plan.tasks))]


def _train_cell(task: Task, suite: Suite, recipe: Recipe, plugins: tuple[Path, ...], out: Path) -> TrainedCell:
    """What a worker does."""
    discover(plugins)
    try:
        inputs = open_training_inputs(suite.model_copy(update={"models": (task.cell.model,)}))
    except UserError as error:
        raise UserError(f"on {platform.node()}: {error}") from None
    if inputs.images.identity != task.about.data["identity"]:
        raise UserError(
            f"on {platform.node()}: the images differ from those of the machine that tokbench was started on"
        )
    plan = Plan(suite, recipe, inputs, (task,), plugins, ())
    return Trainer(plan, out).train(task, Unwatched())


def _result(reference: Any) -> TrainedCell:
    import ray

    try:
        found: TrainedCell = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    return found
