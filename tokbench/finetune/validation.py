"""Top-1 on the validation images while a model is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from tokbench.data.loading import Batch, Unreadable, check_unreadable
from tokbench.data.preprocessing import Preprocessing
from tokbench.data.sets import ImageSet
from tokbench.measure.image_streams import MIB, Loading, image_ids
from tokbench.vit.backbone import DownsampledViT


@dataclass(frozen=True, eq=False)
class Validation:
    """Labelled images that a model is not trained on.

    Attributes:
        images: The images.
        preprocessing: The model's.
        loading: How they are decoded; those that fit into its memory are decoded once.
    """

    images: ImageSet
    preprocessing: Preprocessing
    loading: Loading

    @torch.no_grad()
    def top1(self, model: DownsampledViT) -> float:
        """Percent of the images that a model classifies correctly; it stays in its mode, and on its device.

        Raises:
            DataError: More than 1 % of the images cannot be read.
        """
        training, weight = model.training, model.vit.patch_embed.proj.weight
        ids = image_ids(self.images.names)
        right = seen = 0
        model.eval()
        try:
            for batch in self._batches():
                logits = model(self.preprocessing.normalise(batch.images, weight), ids[batch.index].to(weight.device))
                if self.images.classes is not None:
                    answers = torch.tensor(self.images.classes)[logits[:, list(self.images.classes)].argmax(1).cpu()]
                else:
                    answers = logits.argmax(1).cpu()
                right += int((answers == batch.labels).sum())
                seen += len(batch.labels)
        finally:
            model.train(training)
        return 100 * right / seen

    def _batches(self) -> Iterator[Batch]:
        if len(self.images) * math.prod(self.preprocessing.shape) <= self.loading.memory * MIB:
            yield from self._decoded
        else:
            yield from self._decode()

    @cached_property
    def _decoded(self) -> list[Batch]:
        return list(self._decode())

    def _decode(self) -> Iterator[Batch]:
        lost: list[Unreadable] = []
        for batch, unreadable in self.loading.batches(self.images, self.preprocessing, range(len(self.images))):
            lost += unreadable
            if len(batch.index):
                yield batch
        check_unreadable(lost, len(self.images))
