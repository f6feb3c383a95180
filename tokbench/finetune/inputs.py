"""What training runs on: the models, the images to train on and those to validate on, checked before it begins."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tokbench.data.sets import ImageSet, open_images
from tokbench.embedded.images import calibration_set
from tokbench.errors import UserError
from tokbench.names import EMBEDDED
from tokbench.run.calibration import Calibration
from tokbench.run.inputs import Inputs, open_inputs
from tokbench.run.labelling import for_training_images, in_another_order, labelling_of, of_models
from tokbench.suite import Suite
from tokbench.user_files import about
from tokbench.vit.models import Pretrained


@dataclass(frozen=True, eq=False)
class TrainingInputs:
    """What cells are trained on.

    Attributes:
        run: The device and the models; its images are those to validate on, and its calibration has those to train on.
        images: The images to train on, without augmentation. Of the embedded data, these are one canvas of each digit.
    """

    run: Inputs
    images: ImageSet


def open_training_inputs(suite: Suite) -> TrainingInputs:
    """Open everything that a suite names, and set torch's threads where it says how many.

    `train` names the images to train on. Without it, `set_apart` of `data` are trained on, and the others validate.

    Raises:
        UserError: A model, its weights, the device or the data cannot be opened, or do not fit together.
    """
    _check_sources(suite)
    # Labels and classes are checked below: what a comparison would advise is of no use here.
    only_models = {"train": None, "set_apart": None, "calibration": None, "limit": None, "checkpoint": None}
    opened = open_inputs(suite.model_copy(update={**only_models, "only": ("macs",), "mode": ("eager",)}))
    training, validation = _divided(suite, opened)
    for images in filter(None, (training, validation)):
        if images.unlabelled:
            raise UserError(f"training needs labels: {images.unlabelled}")
        for name, model in opened.models.items():
            _check_classes(name, model, images)
    if validation is not None and suite.limit:
        validation = validation.head(suite.limit)
    calibration = Calibration(training.head(suite.calibration_limit), validation)
    return TrainingInputs(replace(opened, images=validation, calibration=calibration), training)


def _check_sources(suite: Suite) -> None:
    if suite.data == EMBEDDED and suite.train is None and suite.set_apart is None:
        return
    if EMBEDDED in (suite.data, suite.train):
        raise UserError(
            f"--data {EMBEDDED} brings its own training images, apart from those to validate on: leave --train and "
            "--set-apart out"
        )
    if suite.train is not None and suite.set_apart is not None:
        raise UserError("--train names the images to train on, --set-apart takes a part of --data: give one of the two")
    if suite.set_apart is not None and suite.data is None:
        raise UserError("--set-apart takes a part of --data, which is missing")
    if suite.train is None and suite.set_apart is None:
        raise UserError("no images to train on: name them with --train, or let --set-apart 0.5 take a part of --data")


def _divided(suite: Suite, opened: Inputs) -> tuple[ImageSet, ImageSet | None]:
    """The images to train on, and those to validate on."""
    if suite.data == EMBEDDED:
        return calibration_set(), opened.images
    if suite.set_apart is not None:
        assert opened.images is not None
        return opened.images.set_apart(suite.set_apart)
    labelling = for_training_images(of_models(labelling_of(suite), list(opened.models.values())), opened.images)
    with about("--train"):
        return open_images(str(suite.train), labelling), opened.images


def _check_classes(name: str, model: Pretrained, images: ImageSet) -> None:
    if model.classes != images.class_count:
        head = f"its head has {model.classes} outputs" if model.classes else "it has no head"
        raise UserError(
            f"{name} cannot be trained on {images.name}: {head}, and there are {images.class_count} classes; use a "
            "model with a head for these classes"
        )
    if in_another_order(images, model):
        raise UserError(
            f"{name} cannot be trained on {images.name}: its weights name its outputs in another order than that of "
            "the classes; train it by itself"
        )
