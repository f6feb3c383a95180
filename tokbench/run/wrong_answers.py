"""What a plain model answers to images that it gets wrong, in words: to see whether labels and classes match."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from timm.data import ImageNetInfo

from tokbench.data.labelling import IMAGENET_CLASSES
from tokbench.data.sets import ImageSet
from tokbench.errors import escaped
from tokbench.measure.sample_images import read_all
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import Pretrained


@torch.inference_mode()
def answers_in_words(model: Pretrained, images: ImageSet, positions: Sequence[int]) -> list[str]:
    """A line for each image: its name, its label, and what the model answers instead, with the classes' names.

    Args:
        model: On the CPU; it is run once, in float32.
        images: The set.
        positions: Of the images in it. One that cannot be read has no line.
    """
    chosen = images.part(positions)
    plain = DownsampledViT(copy.deepcopy(model.vit).float()).eval()
    lines = []
    for batch in read_all(plain.vit, chosen)[0]:
        logits = plain(batch.images)
        allowed = torch.arange(logits.shape[1]) if images.classes is None else torch.tensor(images.classes)
        sure, places = logits[:, allowed].softmax(dim=1).max(dim=1)
        for place, answer, share in zip(batch.index.tolist(), allowed[places].tolist(), sure.tolist(), strict=True):
            line = (
                f"{chosen.names[place]} is labelled {_class(chosen.labels[place], images)}, the model answers "
                f"{_class(answer, images, model.class_names)} with {100 * share:.0f} %"
            )
            lines.append(escaped(line))  # class names are the file's
    return lines


def _class(index: int, images: ImageSet, names: Sequence[str] = ()) -> str:
    """`3 (dogs)`, or the number alone where the class has no name.

    Args:
        index: The class.
        images: Have names for their classes.
        names: The model's own, which count more where it has some.
    """
    known = names or images.class_names
    if not known and images.class_count == IMAGENET_CLASSES:
        known = ImageNetInfo().label_descriptions()
    name = known[index] if index < len(known) else ""
    return f"{index} ({name})" if name not in ("", str(index)) else f"{index}"
