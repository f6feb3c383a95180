"""What is known of the classes of a comparison's images before these are opened: the settings and the models' heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tokbench.data.class_names import ClassIndex, read_class_names
from tokbench.data.labelling import Labelling
from tokbench.data.sets import ImageSet
from tokbench.suite import Suite
from tokbench.user_files import expanded
from tokbench.vit.models import Pretrained


def labelling_of(suite: Suite) -> Labelling:
    """How the images of `--data` are labelled, as far as the settings say it.

    Raises:
        DataError: The names of the classes cannot be read.
    """
    return Labelling(
        classes=() if suite.classes is None else read_class_names(expanded(str(suite.classes))),
        labels=None if suite.labels is None else expanded(str(suite.labels)),
        split=suite.split,
        image_column=suite.image_column,
        label_column=suite.label_column,
    )


def of_models(labelling: Labelling, models: Sequence[Pretrained]) -> Labelling:
    """The same with what models say: their outputs how many classes there may be, and the first named ones which."""
    return replace(
        labelling,
        outputs=tuple(dict.fromkeys(model.classes for model in models)),
        model_names=next((model.class_names for model in models if model.class_names), ()),
    )


def for_training_images(labelling: Labelling, images: ImageSet | None) -> Labelling:
    """How the images of `--train` are labelled: with the same classes, but without the split and table of `--data`.

    Args:
        labelling: That of `--data`.
        images: Those of `--data`, whose classes they share; None without.
    """
    classes = labelling.classes or (images.class_names if images is not None else ())
    return replace(labelling, split=None, labels=None, classes=classes)


def in_another_order(images: ImageSet, model: Pretrained) -> bool:
    """Whether a model has the classes of the images in another order, so that its answers mean others."""
    index = ClassIndex(model.class_names)
    found = [index.find(name) for name in images.class_names]
    return None not in found and len(set(found)) == len(found) and found != list(range(len(found)))
