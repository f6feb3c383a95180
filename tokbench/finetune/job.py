"""What a training run is given, what it reports on the way, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tokbench.finetune.recipes import Recipe
from tokbench.finetune.training_images import TrainingImages
from tokbench.vit.backbone import DownsampledViT


@dataclass(frozen=True, eq=False)
class Job:
    """What to train, and how.

    Attributes:
        model: Trained in place.
        teacher: The plain model as it was before training; None where the recipe needs none.
        images: To train on.
        evaluate: Gives top-1 on the validation images, in percent; None where there are none.
        recipe: How.
        seed: Of the order, the augmentation, and what is random in the model.
        device: What this process trains on.
        folder: Where the state and the log are; it is created.
        workers: Processes that load images; 0 loads them in this one.
        state_every: Seconds between two saved states.
    """

    model: DownsampledViT
    teacher: DownsampledViT | None
    images: TrainingImages
    evaluate: Callable[[DownsampledViT], float] | None
    recipe: Recipe
    seed: int
    device: torch.device
    folder: Path
    workers: int
    state_every: float


@dataclass(frozen=True)
class Step:
    """How far training is.

    Attributes:
        epoch: The present one, from 1.
        step: Steps done.
        steps: Of all epochs.
        loss: Of the last step, or the mean of the last few.
        lr: The learning rate.
        images_per_second: Over all processes, since the last row of the log.
        seconds_left: About how long training still takes.
        top1: On the validation images, in percent, where an epoch has just ended.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    lr: float
    images_per_second: float
    seconds_left: float
    top1: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of training.

    Attributes:
        epochs: Done.
        steps: Done.
        top1: Of the resulting weights on the validation images, in percent; None without such images.
        failed: Why it was given up; empty where it was not.
    """

    epochs: int
    steps: int
    top1: float | None
    failed: str = ""
