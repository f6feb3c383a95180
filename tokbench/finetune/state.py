"""The saved state of a training run: everything that the next step depends on, in a file that is never half written."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokbench.errors import UserError
from tokbench.files import OTHER_FOLDER, remove_scratch, write_atomically, writing
from tokbench.finetune.recipes import Recipe
from tokbench.finetune.training_images import TrainingImages
from tokbench.vit.backbone import DownsampledViT

FORMAT = "tokbench training state 1"


@dataclass(frozen=True, eq=False)
class State:
    """Where training is.

    Attributes:
        job: The identity of what is trained, from `job_identity`.
        step: Optimiser steps done.
        done: Whether these are all, and the model is what came of them.
        seconds: Of training until here.
        top1: Of the last validation.
        model: The model's state dict.
        optimiser: The optimiser's.
        scaler: That of the scaler of half-precision gradients.
        average: That of the averaged model; empty where there is none.
    """

    job: str
    step: int
    done: bool
    seconds: float
    top1: float | None
    model: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    scaler: Mapping[str, Any]
    average: Mapping[str, Tensor]


def write_state(state: State, file: Path) -> None:
    """Write a state in place of the one before.

    Raises:
        UnwritableError: The file cannot be written.
    """
    content = {"format": FORMAT, **{name: getattr(state, name) for name in State.__dataclass_fields__}}
    with writing(file, OTHER_FOLDER):
        write_atomically(file, lambda path: torch.save(content, path))


def read_state(file: Path, job: str) -> State | None:
    """The state in a file, on the CPU; None where there is none, or one of another job.

    Raises:
        UserError: The file is damaged.
    """
    if not file.exists():
        return None
    remove_scratch(file.parent)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{file} cannot be read ({type(error).__name__}): delete it, to train from the beginning"
        ) from None
    if content.pop("format", None) != FORMAT or content["job"] != job:
        return None
    return State(**content)


def job_identity(model: DownsampledViT, images: TrainingImages, recipe: Recipe, seed: int) -> str:
    """A hash of what is trained, before its first step.

    The method's own weights are not part of it, but their names and shapes are.
    """
    method = model.downsampler
    settings = (
        {} if method is None else {name: value for name, value in vars(method).items() if _is_setting(name, value)}
    )
    shapes = {} if method is None else {name: [*value.shape] for name, value in method.state_dict().items()}
    schedule = model.schedule
    parts = [
        recipe.model_dump(mode="json"),
        seed,
        images.name,
        images.identity,
        len(images),
        type(method).__qualname__,
        settings,
        shapes,
        str(schedule),
        None if schedule is None else schedule.keep,
        model.site,
        model.position,
        model.seed,
    ]
    found = hashlib.sha256(repr(parts).encode())
    for name, value in model.vit.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def _is_setting(name: str, value: object) -> bool:
    """Whether an attribute of a method is one of its parameters, or follows from them."""
    return not name.startswith("_") and name != "training" and isinstance(value, bool | int | float | str | tuple)
