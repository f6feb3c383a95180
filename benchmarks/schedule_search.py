"""The time of an evaluation in a schedule search, next to the forward pass that it needs.

    python benchmarks/schedule_search.py DATA WEIGHTS [MODEL [METHOD [TRIALS]]]

Searches at 70 % of the compute, on 40 % of the images, which are set apart by a hash. Before every tenth trial the
plain model runs over the same images, so that both are timed under the same load; at the end the model found runs over
them as often.

Writes results/speed/schedule_search.txt.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from output import SPEED, write_output
from torch import Tensor

from tokbench.config import load_config
from tokbench.measure.known_shapes import Direction
from tokbench.measure.schedule_search import Trial, carry_out, propose, search
from tokbench.names import PLAIN
from tokbench.registry import discover
from tokbench.run.cells import cells_of
from tokbench.run.inputs import open_inputs
from tokbench.run.search import SearchSetting
from tokbench.run.trial_log import TrialFile
from tokbench.schedule import Explicit, Schedule, Searched
from tokbench.vit.backbone import DownsampledViT

APART = 0.4
FRACTION = 0.7
EVERY = 10  # trials

T = TypeVar("T")


def main(
    data: str, weights: str, model: str = "deit_tiny_patch16_224", method: str = "tome", trials: str = "100"
) -> None:
    """Search, and print and write the times.

    Args:
        data: A folder of images.
        weights: The weights of the model.
        model: The name of a timm model.
        method: The name of a method.
        trials: How many.
    """
    setting, wanted = setting_of(data, weights, model, method, int(trials))
    taken: dict[str, list[float]] = {name: [] for name in ("propose", "count", "compare", "trial", "plain", "found")}
    images = setting.calibration.batches(setting.inputs.models[model].vit)
    blocks = range(setting.backbone.first, setting.backbone.blocks)
    shapes, _ = setting.shapes, setting.answers  # both are done once, before the first trial
    subject = replace(
        setting.subject,
        cost=lambda schedule: timed(taken["count"], lambda: setting.cost(schedule)),
        closeness=lambda schedule: timed(taken["compare"], lambda: setting.closeness(schedule)),
    )

    with tempfile.TemporaryDirectory() as folder:
        log = TrialFile(Path(folder) / "trials.jsonl", "benchmark")

        def attempt(number: int, direction: Direction) -> Trial:
            if number % EVERY == 0:
                timed(taken["plain"], lambda: forward(setting.plain, images))
                timed(taken["propose"], lambda: propose(log.trials, blocks, (0, number)))
            return timed(taken["trial"], lambda: carry_out(subject, direction, log.trials[:number]))

        best = search(shapes, blocks, log, wanted.trials, wanted.seed, attempt)
        stages = log.trials[0]
    found = Schedule.parse(best.schedule)
    assert isinstance(found, Explicit)
    for _ in taken["plain"]:
        timed(taken["found"], lambda: forward(setting.build(found), images))
    count = setting.answers.images
    median = {name: float(np.median(seconds)) for name, seconds in taken.items() if seconds}
    evaluation = median["trial"] + median["propose"]
    lines = [
        f"{model}, {method}, searched({FRACTION}) on {count} images, {wanted.trials} trials",
        f"  {1 / evaluation:.2f} trials/s; an evaluation takes {evaluation:.3f} s (medians from here on):",
        f"    proposing a direction {median['propose']:.3f} s, counting MACs {median['count']:.3f} s "
        f"({len(taken['count']) / wanted.trials:.2f} times per trial), comparing answers {median['compare']:.3f} s",
        f"  a forward pass of the plain model over these images takes {median['plain']:.3f} s, of the one found "
        f"{median['found']:.3f} s",
        f"  an evaluation takes {evaluation / median['found']:.2f} times as long as the forward pass of the one found",
        f"  found {best.schedule}: {best.same} of {count} images answered as by the plain model, at "
        f"{best.fraction:.4f} of its MACs",
        f"  stages {stages.schedule}: {stages.same} of {count}, at {stages.fraction:.4f}",
    ]
    write_output(SPEED / "schedule_search.txt", lines, ("python", "torch", "timm", "tokbench"))


def setting_of(data: str, weights: str, model: str, method: str, trials: int) -> tuple[SearchSetting, Searched]:
    """A method in a model, and the images to search on."""
    config = load_config()
    wanted = Searched(None, FRACTION, trials)
    settings = {"data": data, "weights": weights, "models": (model,), "methods": (method,), "set_apart": APART}
    suite = config.suite("imagenet", {**settings, "schedule": (str(wanted),), "baselines": ("none",)})
    cells = cells_of(suite, config, list(discover(())[0]))
    cell = next(one for one in cells if one.variant.method != PLAIN)
    inputs = open_inputs(suite)
    assert inputs.calibration is not None
    return SearchSetting(cell, wanted, inputs, inputs.calibration, suite, None), wanted


def timed(seconds: list[float], work: Callable[[], T]) -> T:
    """Do some work, and add to the list how long it took."""
    start = time.perf_counter()
    result = work()
    seconds.append(time.perf_counter() - start)
    return result


@torch.inference_mode()
def forward(model: DownsampledViT, images: list[Tensor]) -> None:
    """A forward pass over all images."""
    for batch in images:
        model(batch)


if __name__ == "__main__":
    main(*sys.argv[1:])
