"""What a comparison runs on: the device, the images and the pretrained models, checked before anything is measured."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from tokbench.data.labelling import IMAGENET_CLASSES, Labelling
from tokbench.data.sets import FoundImages, ImageSet, find_images, open_images
from tokbench.embedded.images import calibration_set, image_set
from tokbench.errors import UserError
from tokbench.kinds import KINDS
from tokbench.measure.devices import resolve_device
from tokbench.measure.modes import check_mode
from tokbench.names import EMBEDDED, EMBEDDED_MODELS, RANDOM, RUNTIMES, Dtype
from tokbench.run.calibration import Calibration
from tokbench.run.fine_tuned import own_model
from tokbench.run.labelling import for_training_images, labelling_of, of_models
from tokbench.run.variant import FineTunedFile
from tokbench.suite import Suite
from tokbench.user_files import about, expanded
from tokbench.vit.model_sources import check_name
from tokbench.vit.models import Pretrained, load_model
from tokbench.weights_setting import check_weights, files_of, weights_of

EXPORTED: tuple[Dtype, ...] = ("fp32", "fp16")  # the types that numpy shares with the runtimes


@dataclass(frozen=True, eq=False)
class Inputs:
    """What cells are measured on.

    Attributes:
        device: Where models run.
        models: By name, on the CPU.
        images: None without data.
        train: Labelled images to find nearest neighbours among; None without.
        calibration: Images to calibrate and to search schedules on; None without.
        classes: How many classes an image may belong to.
    """

    device: torch.device
    models: dict[str, Pretrained]
    images: ImageSet | None
    train: ImageSet | None
    calibration: Calibration | None
    classes: int


def open_inputs(suite: Suite, own_models: Mapping[str, FineTunedFile] = MappingProxyType({})) -> Inputs:
    """Open everything that a suite names, and set torch's threads where it says how many.

    Args:
        suite: The settings.
        own_models: The models that only a checkpoint has, by name.

    Raises:
        UserError: A model, its weights, the device or the data cannot be opened, or do not fit together.
    """
    device = resolve_device(suite.device)
    for mode in suite.mode:
        check_mode(mode, device)
        if mode in RUNTIMES and suite.dtype not in EXPORTED:
            raise UserError(f"--mode {mode} runs exported models, in fp32 or fp16 and not in {suite.dtype}")
    if suite.threads is not None:
        torch.set_num_threads(suite.threads)
    names = list(dict.fromkeys(suite.models))
    for name in names:
        if name not in own_models:
            check_name(name)
    _check_fit(names, suite)
    _check_calibration(suite)
    labelling = labelling_of(suite)
    # before the models, which may have to be downloaded
    found = None if suite.data in (None, EMBEDDED) else find_images(str(suite.data), labelling)
    models = {name: own_model(own_models[name]) if name in own_models else _load(name, suite) for name in names}
    _check_readable(names, suite)  # also where nothing needs the data: MACs and times are measured on them
    labelling = of_models(labelling, list(models.values()))
    images, calibration = _open_images(suite, labelling, found)
    return Inputs(
        device,
        models,
        images,
        _open_train(suite, for_training_images(labelling, images)),
        calibration,
        IMAGENET_CLASSES if images is None else images.class_count,
    )


def _load(name: str, suite: Suite) -> Pretrained:
    weights = weights_of(suite.weights, name)
    path = weights if weights in (None, RANDOM) else expanded(weights)
    return load_model(name, path, img_size=suite.img_size, ema=not suite.no_ema)


def _check_fit(names: Sequence[str], suite: Suite) -> None:
    """Refuse combinations of models, weights and data that would give numbers without meaning."""
    check_weights(suite.weights, names)
    weights = dict(files_of(suite.weights))
    if weights.get(None, RANDOM) != RANDOM and len(names) > 1:
        raise UserError(
            f"--weights is one model's, and {len(names)} are compared: name each one's, as in "
            "--weights MODEL=FILE,MODEL=FILE"
        )
    needs = [need for kind in KINDS.values() if (need := kind.needs_data(suite)) is not None]
    if not needs:
        return
    purpose, way_out = needs[-1]
    if suite.data is None:
        raise UserError(
            f"no data to {purpose}: name them with --data (a folder of class folders, a .tar, a .parquet), or {way_out}"
        )
    if RANDOM in weights.values():
        raise UserError(
            f"trained weights are needed to {purpose.removesuffix(' on')}: name them with --weights FILE, or {way_out}"
        )
    _check_readable(names, suite)


def _check_readable(names: Sequence[str], suite: Suite) -> None:
    """Refuse data that a model cannot read: the embedded images have one channel, photographs three."""
    unfit = [name for name in names if (name in EMBEDDED_MODELS) != (suite.data == EMBEDDED)]
    if suite.data is not None and unfit:
        raise UserError(
            f"model '{unfit[0]}' cannot read these data: {', '.join(EMBEDDED_MODELS)} go with --data {EMBEDDED}, "
            "other models with photographs, or, in the suite latency, without data"
        )


def _check_calibration(suite: Suite) -> None:
    """Refuse images to calibrate on that there are not, that are named twice, or that a model cannot read."""
    if suite.set_apart is not None and suite.calibration is not None:
        raise UserError("--calibration names other images, --set-apart takes a part of --data: give one of the two")
    if suite.set_apart is not None and suite.data is None:
        raise UserError("--set-apart takes a part of --data, which is missing")
    unfit = [name for name in suite.models if (name in EMBEDDED_MODELS) != (suite.calibration == EMBEDDED)]
    if suite.calibration is not None and unfit:
        raise UserError(
            f"model '{unfit[0]}' cannot read the images of --calibration: {', '.join(EMBEDDED_MODELS)} go with "
            f"--calibration {EMBEDDED}, other models with photographs"
        )


def _open_images(
    suite: Suite, labelling: Labelling, found: FoundImages | None
) -> tuple[ImageSet | None, Calibration | None]:
    """The images to measure, and those to calibrate on."""
    if suite.data is None:
        return None, _calibration(suite, labelling, None, None)
    images = image_set() if found is None else found.with_classes(labelling)
    if images.unlabelled and suite.train is not None:
        raise UserError(f"{images.unlabelled}; or leave --train out, which needs labels")
    if images.unlabelled and any(KINDS[name].needs_labels for name in suite.only):
        raise UserError(
            f"{images.unlabelled}; or measure agreement with the plain model, which needs no labels: "
            "--only macs,latency,agreement"
        )
    apart, images = (None, images) if suite.set_apart is None else images.set_apart(suite.set_apart)
    images = images.head(suite.limit) if suite.limit else images
    return images, _calibration(suite, labelling, images, apart)


def _calibration(
    suite: Suite, labelling: Labelling, images: ImageSet | None, apart: ImageSet | None
) -> Calibration | None:
    """The images to calibrate on: those set apart, those named, or with embedded data the training digits."""
    if apart is None:
        if suite.calibration not in (None, EMBEDDED):
            apart = open_images(str(suite.calibration), replace(labelling, split=None, labels=None))
        elif EMBEDDED in (suite.calibration, suite.data):
            apart = calibration_set()
    return None if apart is None else Calibration(apart.head(suite.calibration_limit), images)


def _open_train(suite: Suite, labelling: Labelling) -> ImageSet | None:
    if suite.train is None:
        return None
    if importlib.util.find_spec("sklearn") is None:
        raise UserError("--train needs scikit-learn: pip install 'tokbench[knn]'")
    with about("--train"):
        train = open_images(suite.train, labelling)
        if train.unlabelled:
            raise UserError(train.unlabelled)
    return train
