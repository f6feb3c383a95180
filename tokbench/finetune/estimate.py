"""How long training will take: steps of a few cells are timed before it begins."""

from __future__ import annotations

import time
from functools import partial

import torch

from tokbench.finetune.order import steps_of_epoch
from tokbench.finetune.prepare import Plan, Task
from tokbench.finetune.run import fresh_model
from tokbench.measure.training import training_step
from tokbench.run.contain import MethodFailedError, contained

IMAGES = 32  # of a step that is timed; larger batches take longer in proportion
STEPS = 2  # that are timed of each method, after one to warm up; the faster one counts


def estimate_seconds(plan: Plan, tasks: list[Task]) -> float:
    """Roughly how long some cells of a plan take on this machine, without loading images and validation.

    Steps of each method are timed with the first of its keeps.

    Args:
        plan: The plan.
        tasks: Those of its cells that are still to be trained.
    """
    per_image: dict[tuple[str, str], float] = {}
    total = 0.0
    for task in tasks:
        place = task.about.model, task.about.method
        if place not in per_image:
            per_image[place] = _seconds_per_image(task, plan)
        images = steps_of_epoch(plan.recipe, len(plan.inputs.images)) * plan.recipe.batch * plan.recipe.epochs
        total += images * per_image[place]
    return total


def _seconds_per_image(task: Task, plan: Plan) -> float:
    """Of training; 0 where the method fails, as it will when it is trained, which then says why."""
    try:
        return contained(f"timing {task.cell}", partial(_timed, task, plan), None)
    except MethodFailedError:
        return 0.0


def _timed(task: Task, plan: Plan) -> float:
    device = plan.inputs.run.device
    model = fresh_model(task, plan).to(device)
    config = model.vit.pretrained_cfg
    images = torch.zeros(min(IMAGES, plan.recipe.batch), *config["input_size"], device=device)
    step = training_step(model)
    seconds = []
    for _ in range(1 + STEPS):
        begin = time.perf_counter()
        step(images).item()  # which waits for the device
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:]) / len(images)
