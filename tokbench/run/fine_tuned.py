"""Fine-tuned checkpoints in a comparison: which models they are of, and the rows that they add."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch

from tokbench.errors import UserError
from tokbench.names import EMBEDDED_MODELS, FINE_TUNED, PLAIN, PUBLISHED
from tokbench.notation import shortened
from tokbench.registry import bind_parameters, create
from tokbench.run.variant import FineTunedFile, Variant
from tokbench.schedule import Schedule
from tokbench.schedule_text import takes_keep
from tokbench.suite import Suite
from tokbench.trained.architecture import blank_vit
from tokbench.trained.checkpoint import Trained
from tokbench.trained.reading import files_of_checkpoint, read_trained
from tokbench.values import freeze
from tokbench.vit.model_sources import build, check_name
from tokbench.vit.models import Pretrained
from tokbench.weights_setting import as_item, files_of

OWN_WEIGHTS = "the checkpoint's weights without its method, as no other model has this architecture"
DEIT = "deit_tiny_patch16_224"  # as whose images those of public checkpoints are preprocessed

SAME_WAY = ("weights", "recipe", "data", "epochs", "steps", "position")
"""What two trainings have in common that differ in the method alone, of `tokbench.trained.saved.About`."""


@dataclass(frozen=True)
class FineTuned:
    """A checkpoint that is compared.

    Attributes:
        model: The model's name in the table.
        variant: The method as it was trained.
        asked_for: Whether the user named the file itself, not a folder with it.
    """

    model: str
    variant: Variant
    asked_for: bool


def choose_checkpoints(suite: Suite, given: Container[str]) -> Suite:
    """A suite with those of its checkpoints that the user asked for, and with their models if the user named none.

    Of a folder, checkpoints of other models, schedules and keeps are left out; a file that the user named must fit.

    Args:
        suite: The suite.
        given: The names of the settings that the user gave.

    Raises:
        UserError: A checkpoint cannot be read, does not say which model it is of, or is not what was asked for.
    """
    if not suite.checkpoint:
        return suite
    found = list(fine_tuned(suite.checkpoint))
    reasons = {id(one): _unwanted(one, suite, given) for one in found}
    chosen = [one for one in found if not reasons[id(one)]]
    unfit = [one for one in found if reasons[id(one)] and (one.asked_for or not chosen)]
    if unfit:
        raise UserError(f"{_file(unfit[0])} {reasons[id(unfit[0])]}")
    files = (file for one in chosen if (file := one.variant.fine_tuned) is not None)
    items = suite.checkpoint if len(chosen) == len(found) else [as_item(file.like, file.path) for file in files]
    models = suite.models if "models" in given else tuple(dict.fromkeys(one.model for one in chosen))
    return suite.model_copy(update={"checkpoint": tuple(items), "models": models})


def _unwanted(one: FineTuned, suite: Suite, given: Container[str]) -> str:
    """Why a checkpoint is not what the user asked for; empty if it is. The plain model has no schedule."""
    variant = one.variant
    if "models" in given and one.model not in suite.models:
        return f"is of the model '{shortened(one.model)}', which is not compared: add it to --models, or leave it out"
    if variant.method == PLAIN:
        return ""
    if "schedule" in given and PUBLISHED not in suite.schedule and variant.schedule not in map(_shown, suite.schedule):
        return f"was trained with the schedule {variant.schedule}: add it to --schedule, or leave that option out"
    if "keep" in given and takes_keep(variant.schedule) and variant.keep not in suite.keep:
        return f"was trained at keep {variant.keep:g}: add it to --keep, or leave that option out"
    return ""


def _shown(schedule: str) -> str:
    """A schedule as the table shows it."""
    return str(Schedule.parse(schedule, 0.5 if takes_keep(schedule) else None))


def fine_tuned_of(checkpoint: Sequence[str], models: Sequence[str]) -> list[FineTuned]:
    """The checkpoints of some models: the plain ones first, then in the order of their files.

    Args:
        checkpoint: The items of the setting `checkpoint`.
        models: The models that are compared.

    Raises:
        UserError: One cannot be read, or two give the same row.
    """
    chosen = [one for one in fine_tuned(checkpoint) if one.model in models]
    rows: dict[tuple[str, Variant, int | None], FineTuned] = {}
    for one in chosen:
        same = rows.setdefault((one.model, one.variant.without_file(), _seed(one)), one)
        if same is not one:
            raise UserError(
                f"{_file(same)} and {_file(one)} are the same method with the same settings and seed: compare one at "
                "a time"
            )
    return sorted(chosen, key=lambda one: one.variant.method != PLAIN)


def fine_tuned(checkpoint: Sequence[str]) -> Iterator[FineTuned]:
    """Each checkpoint with its model.

    Raises:
        UserError: One cannot be read, or does not say which model it is.
    """
    taken: dict[str, Path] = {}
    for like, path in files_of(checkpoint):
        if like is not None:
            check_name(like)
        files = files_of_checkpoint(path)
        for file in files:
            trained = read_trained(file)
            model, own = _model_of(trained, like)
            if own and taken.setdefault(model, file) != file:
                model = f"{model}-{trained.sha256[:8]}"
            yield FineTuned(model, _variant(trained, like, own), asked_for=files == [file])


def own_model(file: FineTunedFile) -> Pretrained:
    """The plain model of a checkpoint whose architecture no other model has: its own weights without the method."""
    trained = read_trained(Path(file.path))
    vit = blank_vit(trained, file.like)
    vit.load_state_dict(dict(trained.vit))
    with torch.device("meta"):
        like: Any = build(file.like or DEIT)
    vit.pretrained_cfg = {
        **like.pretrained_cfg,
        "input_size": (vit.patch_embed.proj.in_channels, *vit.patch_embed.img_size),
    }
    return Pretrained(vit.float().eval(), trained.sha256, remarks=(OWN_WEIGHTS,))


def _model_of(trained: Trained, like: str | None) -> tuple[str, bool]:
    """A checkpoint's model, and whether only the file itself has this architecture."""
    if trained.model:
        if like not in (None, trained.model) and not _same_shapes(trained, str(like)):
            raise UserError(f"{trained.file} is of the model {trained.model}, not of '{like}'")
        return like or trained.model, False
    if like is not None and _same_shapes(trained, like):
        return like, False
    blank_vit(trained, like)  # so that what is missing is said now
    stem = trained.file.stem
    known = stem in EMBEDDED_MODELS or timm.is_model(stem)
    return (f"{stem}-{trained.sha256[:8]}" if known else stem), True


def _same_shapes(trained: Trained, model: str) -> bool:
    """Whether a checkpoint fits a model, but for the number of its classes."""
    with torch.device("meta"):
        vit = build(model)
    wanted = {name: value.shape for name, value in vit.state_dict().items() if not name.startswith("head.")}
    return wanted == {name: value.shape for name, value in trained.vit.items() if not name.startswith("head.")}


def _variant(trained: Trained, like: str | None, own: bool) -> Variant:
    """A checkpoint's method as it is put into its model.

    Raises:
        UserError: The method is unknown, or has no such parameters.
    """
    head = trained.vit.get("head.bias")
    file = FineTunedFile(
        path=str(trained.file.absolute()),
        sha256=trained.sha256,
        like=like,
        own_model=own,
        classes=None if head is None else len(head),
        seed=trained.seed,
        training=_training(trained),
    )
    remarks = (*trained.remarks, _described(trained))
    if trained.method == PLAIN:
        return Variant(PLAIN, regime=FINE_TUNED, fine_tuned=file, remarks=remarks)
    params = bind_parameters(trained.method, dict(trained.params))
    method = create(trained.method, **params)
    return Variant(
        method=method.name,
        params=tuple((name, freeze(params[name])) for name in sorted(params)),
        schedule=trained.schedule,
        keep=trained.keep,
        site=trained.site,
        position=trained.position,
        stochastic=method.stochastic,
        adaptive=method.adaptive,
        regime=FINE_TUNED,
        fine_tuned=file,
        remarks=remarks,
    )


def _training(trained: Trained) -> str:
    """A hash of how a checkpoint was trained, but for the method and the seed; empty where that is not known."""
    if not trained.about:
        return ""
    same = {name: trained.about[name] for name in SAME_WAY}
    return hashlib.sha256(json.dumps(same, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _described(trained: Trained) -> str:
    """`fine-tuned by the recipe haurum, 30 epochs on 1000 images (imagenet-train)`."""
    about = trained.about
    if not about:
        return f"fine-tuned weights of {trained.file.name}"
    epochs = about["epochs"]
    return (
        f"fine-tuned by the recipe {about['recipe'].get('name', '')}, {epochs} epoch{'' if epochs == 1 else 's'} on "
        f"{about['data'].get('images')} images ({about['data'].get('name')})"
    )


def _file(one: FineTuned) -> str:
    assert one.variant.fine_tuned is not None
    return shortened(one.variant.fine_tuned.path)


def _seed(one: FineTuned) -> int | None:
    assert one.variant.fine_tuned is not None
    return one.variant.fine_tuned.seed
