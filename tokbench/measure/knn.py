"""Classifying images by their nearest neighbours among labelled images, by a model's pooled features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokbench.data.loading import Unreadable, check_unreadable
from tokbench.data.preprocessing import preprocessing_of
from tokbench.data.sets import ImageSet
from tokbench.isolation import alive
from tokbench.measure.image_streams import Loading, image_ids
from tokbench.outcomes import RIGHT, UNREADABLE, WRONG
from tokbench.vit.backbone import DownsampledViT

NEIGHBOURS = 20
TEMPERATURE = 0.07


def classify_by_neighbours(model: DownsampledViT, images: ImageSet, train: ImageSet, loading: Loading) -> str:
    """How each image is classified by the 20 training images with the most similar features.

    Each neighbour votes for its class with the weight exp(cosine similarity / 0.07).

    Args:
        model: In evaluation mode on its device.
        images: The images to classify.
        train: The images to find neighbours among.
        loading: How images are decoded.

    Returns:
        One character per image of `images`: right, wrong or unreadable; see `tokbench.outcomes`.

    Source: Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination", section 3.4;
    the numbers of Caron et al. 2021, "Emerging properties in self-supervised vision transformers", appendix E.
    """
    from sklearn.neighbors import KNeighborsClassifier

    known, places = features(model, train, loading)
    found, positions = features(model, images, loading)
    search = KNeighborsClassifier(
        n_neighbors=min(NEIGHBOURS, len(places)), metric="cosine", algorithm="brute", weights=_votes
    )
    search.fit(known.numpy(), np.array(train.labels)[places])
    predicted = search.predict(found.numpy())
    outcomes = [UNREADABLE] * len(images)
    for position, label in zip(positions, predicted.tolist(), strict=True):
        outcomes[position] = RIGHT if label == images.labels[position] else WRONG
    return "".join(outcomes)


@torch.inference_mode()
def features(model: DownsampledViT, images: ImageSet, loading: Loading) -> tuple[Tensor, list[int]]:
    """The pooled features (n, D) in float32 of the images that can be read, on the CPU, and their positions.

    Raises:
        DataError: More than 1 % of the images cannot be read.
    """
    preprocessing, weight = preprocessing_of(model.vit), model.vit.patch_embed.proj.weight
    ids = image_ids(images.names)
    parts, positions = [], []
    unreadable: list[Unreadable] = []
    for batch, lost in loading.batches(images, preprocessing, range(len(images))):
        alive()
        unreadable += lost
        if len(batch.index):
            tokens = model.embed(preprocessing.normalise(batch.images, weight))
            left = model.through(tokens, range(len(model.vit.blocks)), ids[batch.index].to(weight.device))
            parts.append(model.pool(left).float().cpu())
            positions += batch.index.tolist()
    check_unreadable(unreadable, len(images))
    return torch.cat(parts), positions


def _votes(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights of neighbours at cosine distances."""
    return np.exp((1 - distances) / TEMPERATURE)
