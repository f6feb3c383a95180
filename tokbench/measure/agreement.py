"""How far a model's predictions and features are from the plain model's for the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, kl_div

from tokbench.measure.double_precision import in_double
from tokbench.outcomes import ANOTHER, NO_CLASSES, SAME, UNREADABLE


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model gives for a batch.

    Attributes:
        logits: (B, classes).
        features: (B, D) the pooled tokens that the head reads.
    """

    logits: Tensor
    features: Tensor


Predictions = Mapping[int, Prediction]
"""What a model gives for the batches of a shard, by the batch's number."""


@dataclass(frozen=True)
class Comparison:
    """A model's answers to a shard beside the plain model's.

    Attributes:
        outcomes: One character per position; see `tokbench.outcomes`.
        kl: The sum over images of the KL divergence in nats; None for models without a head.
        cosine: The sum over images of the features' cosine similarity.
    """

    outcomes: str
    kl: float | None
    cosine: float


def difference(plain: Prediction, other: Prediction, classes: Tensor | None) -> Tensor:
    """How a model's predictions for a batch differ from the plain model's, in float64.

    Args:
        plain: The plain model's.
        other: The model's, for the same images.
        classes: (C,) logits are restricted to these; None for all.

    Returns:
        (B, 3): 1 where the top-1 is the same, else 0; the KL divergence Σ p log(p/q) of the predicted distribution q
        from the plain model's p, in nats; and the cosine similarity of the features.
    """
    p, q = (in_double(one.logits if classes is None else one.logits[:, classes]) for one in (plain, other))
    same = (p.argmax(dim=1) == q.argmax(dim=1)).double()
    kl = kl_div(q.log_softmax(dim=1), p.log_softmax(dim=1), log_target=True, reduction="none").sum(dim=1)
    cosine = cosine_similarity(in_double(plain.features), in_double(other.features))
    return torch.stack([same, kl, cosine], dim=1)


def compare(differences: Sequence[Tensor], positions: Sequence[int], count: int, *, has_classes: bool) -> Comparison:
    """Sum up the differences of a shard.

    Args:
        differences: Of its batches, as `difference` gives them.
        positions: The position of each image in the shard, batch by batch.
        count: Positions of the shard, images that could not be read included.
        has_classes: Whether the models predict classes.
    """
    rows = torch.cat([torch.empty(0, 3, dtype=torch.float64), *(one.cpu() for one in differences)])
    outcomes = [UNREADABLE] * count
    for position, same in zip(positions, rows[:, 0].tolist(), strict=True):
        outcomes[position] = NO_CLASSES if not has_classes else SAME if same else ANOTHER
    kl, cosine = rows[:, 1:].sum(dim=0).tolist()
    return Comparison("".join(outcomes), kl if has_classes else None, cosine)
